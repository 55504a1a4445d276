import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import { type ChatMessage, ChatTemplate } from '../../src/tokenizer/chat-template.js';
import { parseTemplate } from '../../src/tokenizer/jinja/program.js';
import { renderTemplate } from '../../src/tokenizer/jinja/render.js';
import { itWithData } from '../shared-data.js';
import { printedByTransformers } from './printed-by-transformers.js';

const readJson = <T>(path: string): T => JSON.parse(readFileSync(path, 'utf8')) as T;
const tokens = { bosToken: '<s>', eosToken: '</s>' };

interface Rendered {
  cases: Record<string, { messages: ChatMessage[]; tools?: unknown[] }>;
  /** Template file to case (with "+gen": ready for the assistant) to text or error. */
  rendered: Record<string, Record<string, string | { error: string }>>;
}

/**
 * Where transformers fails and we do not: its filter `map` gives a generator, which the template then writes as JSON;
 * ours gives a list.
 */
const rendersHere = new Set(
  ['tools_offer', 'tools_offer+gen', 'tools_round', 'tools_round+gen'].map(
    (name) => `llamacpp/llama-cpp-deepseek-r1.jinja ${name}`,
  ),
);

describe('chat templates as transformers renders them', () => {
  itWithData('chat_templates/rendered_by_hf.json', 'hold for every template that is there', (path) => {
    const { cases, rendered } = readJson<Rendered>(path);
    const counts = { texts: 0, refusals: 0, templatesAbsent: 0 };
    for (const [file, expectations] of Object.entries(rendered)) {
      const templatePath = join(path, '..', file);
      if (!existsSync(templatePath)) {
        counts.templatesAbsent++;
        continue;
      }
      const template = ChatTemplate.parse(readFileSync(templatePath, 'utf8'), tokens, file);
      for (const [name, expected] of Object.entries(expectations)) {
        const { messages, tools } = cases[name.replace('+gen', '')]!;
        const render = () =>
          template.render(messages, {
            tools,
            addGenerationPrompt: name.endsWith('+gen'),
            variables: { strftime_now: () => '26 Jul 2024' }, // the time of the recording
          });
        if (typeof expected === 'string') {
          expect(render(), `${file} ${name}`).toBe(expected);
          counts.texts++;
        } else if (!rendersHere.has(`${file} ${name}`)) {
          expect(render, `${file} ${name}: ${expected.error}`).toThrow(EngineError);
          counts.refusals++;
        }
      }
    }
    expect(counts).toEqual({ texts: 592, refusals: 52, templatesAbsent: 25 });
  });

  itWithData('chat_templates/llamacpp', 'parse, all of them', (folder) => {
    const files = readdirSync(folder).filter((name) => name.endsWith('.jinja'));
    for (const file of files) ChatTemplate.parse(readFileSync(join(folder, file), 'utf8'), tokens, file);
    expect(files.length).toBeGreaterThan(50);
  });

  itWithData('chat_templates/minja', "render minja's conversations", (folder) => {
    const file = 'Qwen-Qwen3-Coder-30B-A3B-Instruct.jinja';
    const template = ChatTemplate.parse(readFileSync(join(folder, file), 'utf8'), tokens, file);
    // This template, like most, needs arguments as objects; transformers refuses the text of the OpenAI API too.
    const withObjects = (key: string, value: unknown) => (key === 'arguments' ? JSON.parse(value as string) : value);
    for (const context of ['simple.json', 'system.json', 'tool_use.json']) {
      const { messages, tools } = JSON.parse(readFileSync(join(folder, context), 'utf8'), withObjects) as {
        messages: ChatMessage[];
        tools?: unknown[];
      };
      const text = template.render(messages, { tools });
      for (const { content } of messages) expect(text).toContain(content);
      expect(text.endsWith('<|im_start|>assistant\n')).toBe(true);
    }
  });
});

interface EndToEnd {
  chat_template: string;
  data: Record<string, unknown>;
  target: string;
}

describe("upstream's conversations", () => {
  // Python writes the dictionaries that this template prints in its own way.
  const printsTools = 'MadeAgents/Hammer2.1';
  const recordedAt: Record<string, Date> = { 'HuggingFaceTB/SmolLM3-3B': new Date(2025, 6, 10) };

  itWithData('chat_templates/hf-jinja/e2e.json', 'hold, with tools as Python prints them', (path) => {
    const cases = Object.values(readJson<Record<string, Record<string, EndToEnd>>>(path)).flatMap(Object.entries);
    expect(cases).toHaveLength(53);
    for (const [name, { chat_template, data, target }] of cases) {
      const render = (source: string) => renderTemplate(parseTemplate(source, name), data, name, recordedAt[name]);
      const inPython = (text: string) =>
        name === printsTools ? text.replace(render('{{ tools | tojson }}'), render('{{ tools }}')) : text;
      expect(render(chat_template), name).toBe(inPython(target));
    }
  });
});

interface Unit {
  template: string;
  context: Record<string, unknown>;
  expected: string;
}

/** Functions that upstream's cases pass, and that JSON cannot hold. */
const functions: Record<string, Record<string, unknown>> = {
  NUMBERS: { add: (a: number, b: number) => a + b },
  FUNCTIONS: { func: (...args: unknown[]) => args.length },
  IS_OPERATOR_4: { func: () => null },
  OBJ_METHODS: { obj: { x: (...args: string[]) => args.join(''), z: { A: (...args: string[]) => args.join('_') } } },
};

describe("upstream's units", () => {
  itWithData('chat_templates/hf-jinja/templates.json', 'hold, with values as Python prints them', (path) => {
    const units = Object.entries(readJson<Record<string, Unit>>(path));
    let asPython = 0;
    for (const [name, { template, context, expected }] of units) {
      const printed = printedByTransformers[name];
      if (printed !== undefined) asPython++;
      const variables = { ...context, ...functions[name] };
      expect(renderTemplate(parseTemplate(template, name), variables, name), name).toBe(printed ?? expected);
    }
    expect({ units: units.length, asPython }).toEqual({ units: 161, asPython: 49 });
  });
});

describe('dates', () => {
  const now = new Date(2026, 2, 5, 15, 4, 9);
  it.each([
    ['%d %b %Y', '05 Mar 2026'],
    ['%B %-d, %y', 'March 5, 26'],
    ['%A %a %j', 'Thursday Thu 064'],
    ['%H:%M:%S %I %p', '15:04:09 03 PM'],
    ['%F %T %e%%', '2026-03-05 15:04:09  5%'],
    ['%Q %', '%Q %'],
  ])('%s is %s', (format, expected) => {
    const program = parseTemplate('{{ strftime_now(f) }}', 'date');
    expect(renderTemplate(program, { f: format }, 'date', now)).toBe(expected);
  });
});
