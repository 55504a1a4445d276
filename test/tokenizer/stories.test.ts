import { readdirSync, readFileSync } from 'node:fs';
import { describe, expect } from 'vitest';
import { itWithData, sharedData } from '../shared-data.js';
import { ggufTokenizer, jsonTokenizer } from './vocabularies.js';

interface Run {
  readonly prompt: string;
  readonly prompt_ids: number[];
  readonly generated_ids: number[];
  readonly text: string;
}

function runs(): readonly Run[] {
  const path = sharedData('models/stories260K/expected/greedy.json');
  return (JSON.parse(readFileSync(path!, 'utf8')) as { runs: Run[] }).runs;
}

const json = 'models/stories260K-hf/tokenizer.json';
const gguf = 'models/stories260K-gguf';

describe('stories260K', () => {
  itWithData(json, 'the prompts have the ids of run.c, transformers and llama.cpp', (path) => {
    const tokenizer = jsonTokenizer(path);
    for (const run of runs()) expect([...tokenizer.encode(run.prompt)]).toEqual(run.prompt_ids);
  });

  itWithData(gguf, 'every GGUF file of the model gives the same ids as its tokenizer.json', (folder) => {
    for (const name of readdirSync(folder).filter((file) => file.endsWith('.gguf'))) {
      const tokenizer = ggufTokenizer(`${folder}/${name}`);
      for (const run of runs()) expect([...tokenizer.encode(run.prompt)], name).toEqual(run.prompt_ids);
    }
  });

  itWithData(gguf, 'prompt and answer, streamed, are the text that was published', (folder) => {
    const tokenizers = [jsonTokenizer(sharedData(json)!), ggufTokenizer(`${folder}/stories260K-f32.gguf`)];
    for (const tokenizer of tokenizers) {
      for (const { prompt_ids, generated_ids, text } of runs()) {
        const decoder = tokenizer.stream({ after: prompt_ids });
        const answer = generated_ids.map((id) => decoder.push([id])).join('') + decoder.flush();
        expect(tokenizer.decode(prompt_ids) + answer).toBe(text);
      }
    }
  });

  itWithData(gguf, 'ids of GGUF and tokenizer.json agree on any text', (folder) => {
    const fromJson = jsonTokenizer(sharedData(json)!);
    const fromGguf = ggufTokenizer(`${folder}/stories260K-f32.gguf`);
    const texts = [
      '',
      ' ',
      '  a  b ',
      'na\u00efve \u65e5\u672c\u8a9e \ud83d\ude00',
      '\n\n\t',
      '\u2581x \u2581',
      "it's 12,345.",
      'a\u0000b',
    ];
    for (const text of texts) expect(fromGguf.encode(text)).toEqual(fromJson.encode(text));
  });
});
