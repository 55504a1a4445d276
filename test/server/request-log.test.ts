import pino from 'pino';
import { describe, expect, it } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import { RequestLog, readable, withPromptLog } from '../../src/server/request-log.js';
import type { ServedModel } from '../../src/serving/served-model.js';
import { engineStats, outcome, requestStart } from './requests.js';

function recorded() {
  const lines: string[] = [];
  const log = pino({ base: null }, { write: (line: string) => void lines.push(line) });
  return { log, lines, parsed: () => lines.map((line) => JSON.parse(line) as Record<string, unknown>) };
}

describe('the log of requests', () => {
  it('has one line for each, with what it cost', () => {
    const { log, parsed } = recorded();
    const observation = new RequestLog(log).begin(requestStart({ parameters: { n: 2 } }));
    observation.tokens();
    observation.end({ status: 200, promptTokens: 10, outcomes: [outcome(), outcome({ finishReason: 'length' })] });
    const [line, ...others] = parsed();
    expect(others).toEqual([]);
    expect(line).toMatchObject({
      level: 30,
      msg: 'request',
      request_id: 'req-1',
      operation: 'chat',
      model: 'tiny',
      stream: true,
      status: 200,
      prompt_tokens: 10,
      completion_tokens: 8,
      cached_tokens: 6,
      queue_ms: 5,
      ttft_ms: 30,
      finish_reasons: ['stop', 'length'],
    });
    expect(line!.total_ms).toBeGreaterThanOrEqual(0);
    expect(line).not.toHaveProperty('error');
  });

  it('names errors of users without quoting them', () => {
    const { log, lines, parsed } = recorded();
    const error = new EngineError('OPTION_INVALID', { option: 'prompt', value: 'my secret', expected: 'something' });
    new RequestLog(log).begin(requestStart()).end({ status: 400, promptTokens: 0, outcomes: [], error });
    expect(parsed()[0]).toMatchObject({ level: 30, status: 400, error: 'OPTION_INVALID' });
    expect(lines.join()).not.toContain('my secret');
  });

  it('warns when the server is too busy, and calls a fault of ours an error', () => {
    const { log, parsed } = recorded();
    const requests = new RequestLog(log);
    const full = new EngineError('QUEUE_FULL', { waiting: 5, limit: 5 });
    requests.begin(requestStart()).end({ status: 503, promptTokens: 0, outcomes: [], error: full });
    requests.begin(requestStart()).end({ status: 500, promptTokens: 0, outcomes: [], error: new TypeError('broken') });
    const [busy, fault] = parsed();
    expect(busy).toMatchObject({ level: 40, error: 'QUEUE_FULL' });
    expect(fault).toMatchObject({ level: 50, error: 'INTERNAL' });
  });

  it('can be read at a terminal', () => {
    const { log, lines } = recorded();
    new RequestLog(log).begin(requestStart()).end({ status: 200, promptTokens: 3, outcomes: [] });
    const text = readable(lines[0]!);
    expect(text).toMatch(/^\d\d:\d\d:\d\d INFO {2}request request_id=req-1 operation=chat .*prompt_tokens=3.*\n$/);
  });
});

describe('the log of prompts', () => {
  const model: ServedModel = {
    contextSize: 8,
    readPrompt: () => Int32Array.of(1),
    applyTemplate: () => '',
    readText: () => Int32Array.of(1),
    decode: () => '',
    stats: () => engineStats,
    generate: async function* () {
      yield { index: 0, text: 'answer', tokenIds: [1] };
    },
    embed: async () => ({ vectors: [], promptTokens: 1 }),
  };

  it('shows what a model is asked, and leaves its answers as they are', async () => {
    const { log, parsed } = recorded();
    const logged = withPromptLog(model, log);
    const texts = [];
    for await (const { text } of logged.generate({ prompt: 'Once', tenant: 'a' })) texts.push(text);
    await logged.embed({ inputs: ['upon'] });
    expect(texts).toEqual(['answer']);
    expect(parsed()).toMatchObject([
      { msg: 'prompt', prompt: 'Once', tenant: 'a' },
      { msg: 'prompt', inputs: ['upon'] },
    ]);
  });
});
