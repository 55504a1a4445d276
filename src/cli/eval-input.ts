import { Option } from 'commander';
import { EngineError } from '../base/errors.js';
import { number } from './flags.js';
import { readPrompt } from './prompt.js';

/** Values of the flags that every evaluation has. */
export interface EvaluationFlags {
  readonly file?: string;
  readonly tokenIds?: string;
  readonly window?: number;
  readonly stride?: number;
  readonly maxTokens?: number;
  readonly resume?: string;
  readonly json?: boolean;
}

export function evaluationFlags(): Option[] {
  return [
    new Option('-f, --file <path>', 'text to evaluate on; `-` reads stdin (one line break at its end is dropped)'),
    new Option(
      '--token-ids <path>',
      'token ids in place of a text, separated by spaces, commas or line breaks; used as they are',
    ),
    number(
      '--window <tokens>',
      'longest input, with the beginning-of-text token; default 512, or the context size if that is smaller',
    ),
    number(
      '--stride <tokens>',
      'how far a window begins after the one before; default window - 1. Smaller gives every token more context; what comes closest to llama.cpp, which scores second halves only, is half a window',
    ),
    number('--max-tokens <n>', 'use only this many tokens of the text'),
    new Option('--resume <path>', 'file that keeps what is done after every window; if it is there, go on from it'),
    new Option('--json', 'print one JSON object'),
  ];
}

/** The text, or the token ids. Throws OPTION_INVALID unless exactly one is given, and what readPrompt throws. */
export async function readInput({ file, tokenIds }: EvaluationFlags): Promise<string | number[]> {
  if ((file === undefined) === (tokenIds === undefined)) {
    const expected = 'a text, either by --file or as ids by --token-ids';
    throw new EngineError('OPTION_INVALID', { option: '--file', value: file, expected });
  }
  const text = await readPrompt({ promptFile: file ?? tokenIds });
  return file === undefined ? parseIds(text) : text;
}

function parseIds(text: string): number[] {
  return Array.from(text.replace(/^\s*\[|\]\s*$/g, '').matchAll(/[^\s,]+/g), ([word]) => {
    if (/^\d{1,10}$/.test(word)) return Number(word);
    throw new EngineError('OPTION_INVALID', {
      option: '--token-ids',
      value: word,
      expected: 'a file of token ids, whole numbers from 0',
    });
  });
}
