import { resolveSampling } from '../../src/engine/sampler.js';
import type { TokenRequest } from '../../src/engine/sequence.js';
import type { TokenStream } from '../../src/engine/token-stream.js';
import { VOCAB } from './fake-session.js';

export const sampling = resolveSampling({ seed: 1 }, VOCAB);
/** Every token has to be known before the next is sampled. */
export const penalised = resolveSampling({ seed: 1, presencePenalty: 1 }, VOCAB);

export function request(
  promptIds: ArrayLike<number>,
  maxTokens: number,
  more: Partial<TokenRequest> = {},
): TokenRequest {
  return { promptIds: Int32Array.from(promptIds), maxTokens, sampling, stopIds: new Set(), ...more };
}

/** The tokens of a request's only answer. */
export async function ids(stream: TokenStream): Promise<number[]> {
  const all: number[] = [];
  for await (const token of stream) all.push(token.id);
  return all;
}

/** The tokens of all answers, by choice. */
export async function answers(stream: TokenStream, n: number): Promise<number[][]> {
  const all: number[][] = Array.from({ length: n }, () => []);
  for await (const { choice, tokens } of stream.parts()) all[choice]!.push(...tokens.map(({ id }) => id));
  return all;
}

/** `length` token ids that count up from `first`. */
export const prompt = (length: number, first = 1): number[] => Array.from({ length }, (_, i) => (first + i) % VOCAB);
