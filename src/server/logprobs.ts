import type { TokenLogprob, TokenLogprobs } from '../serving/completer.js';

/** JSON has no −Infinity; this is what OpenAI has for tokens that are all but impossible. */
const SMALLEST_LOGPROB = -9999;

function finite(logprob: number): number {
  return Number.isFinite(logprob) ? logprob : SMALLEST_LOGPROB;
}

/** Bytes of a token's text; null where the token is a part of a character, of which U+FFFD stands for the rest. */
function bytesOf(token: string): readonly number[] | null {
  return token.includes('\ufffd') ? null : [...Buffer.from(token)];
}

function chatToken({ token, logprob }: TokenLogprob) {
  return { token, logprob: finite(logprob), bytes: bytesOf(token) };
}

export function chatLogprobs(tokens: readonly TokenLogprobs[]) {
  return {
    content: tokens.map((token) => ({ ...chatToken(token), top_logprobs: token.top.map(chatToken) })),
    refusal: null,
  };
}

/** The shape of /v1/completions. `offset`: where the first token begins in the choice's text, in UTF-16 code units. */
export function completionLogprobs(tokens: readonly TokenLogprobs[], offset: number) {
  let end = offset;
  const offsets = tokens.map(({ token }) => {
    end += token.length;
    return end - token.length;
  });
  return {
    tokens: tokens.map(({ token }) => token),
    token_logprobs: tokens.map(({ logprob }) => finite(logprob)),
    top_logprobs: tokens.map(topLogprobs),
    text_offset: offsets,
  };
}

/** Text → log-probability. Of tokens with the same text the most likely one counts; the sampled one is always there. */
function topLogprobs(token: TokenLogprobs): Readonly<Record<string, number>> {
  const tops = new Map<string, number>();
  for (const { token: text, logprob } of [...token.top, token]) if (!tops.has(text)) tops.set(text, finite(logprob));
  return Object.fromEntries(tops);
}
