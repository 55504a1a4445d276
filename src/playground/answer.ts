/** A token that the model might have chosen. */
export interface Alternative {
  readonly text: string;
  /** Natural logarithm of its probability. */
  readonly logprob: number;
}

/** A generated token, with the most likely tokens at its position in descending order. */
export interface Token extends Alternative {
  /** Its UTF-8, which may be a part of a character; null where the server does not say. */
  readonly bytes: readonly number[] | null;
  readonly top: readonly Alternative[];
}

/** One chunk of a streamed answer, whichever route it came from. */
export interface Chunk {
  readonly text: string;
  readonly tokens: readonly Token[];
  readonly finishReason: string | null;
  readonly usage: Usage | null;
}

/** In tokens. */
export interface Usage {
  readonly prompt: number;
  readonly completion: number;
  /** Prompt tokens found in the prefix cache. */
  readonly cached: number;
}

interface ChatLogprob {
  readonly token: string;
  readonly logprob: number;
  readonly bytes?: number[] | null;
  readonly top_logprobs?: readonly { token: string; logprob: number }[];
}

/** What both of OpenAI's streams may hold; everything is optional, since other servers leave things out. */
interface WireChunk {
  readonly error?: { readonly message?: string };
  readonly choices?: readonly {
    readonly text?: string;
    readonly delta?: { readonly content?: string | null };
    readonly finish_reason?: string | null;
    readonly logprobs?: {
      readonly content?: readonly ChatLogprob[] | null;
      readonly tokens?: readonly string[];
      readonly token_logprobs?: readonly (number | null)[];
      readonly top_logprobs?: readonly (Readonly<Record<string, number>> | null)[] | null;
    } | null;
  }[];
  readonly usage?: {
    readonly prompt_tokens: number;
    readonly completion_tokens: number;
    readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null;
  } | null;
}

/** Reads one event of a chat completion's or a completion's stream. Throws an Error with the server's message. */
export function readChunk(json: string): Chunk {
  const { error, choices, usage } = JSON.parse(json) as WireChunk;
  if (error) throw new Error(error.message ?? 'the server reported an error without a message');
  const choice = choices?.[0];
  return {
    text: choice?.delta?.content ?? choice?.text ?? '',
    tokens: choice?.logprobs ? tokensOf(choice.logprobs) : [],
    finishReason: choice?.finish_reason ?? null,
    usage: usage
      ? {
          prompt: usage.prompt_tokens,
          completion: usage.completion_tokens,
          cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
        }
      : null,
  };
}

type WireLogprobs = NonNullable<NonNullable<NonNullable<WireChunk['choices']>[number]['logprobs']>>;

function tokensOf({ content, tokens, token_logprobs, top_logprobs }: WireLogprobs): Token[] {
  if (content) {
    return content.map(({ token, logprob, bytes, top_logprobs: top }) => ({
      text: token,
      logprob,
      bytes: bytes ?? null,
      top: (top ?? []).map(({ token: text, logprob: value }) => ({ text, logprob: value })),
    }));
  }
  return (tokens ?? []).map((text, index) => ({
    text,
    logprob: token_logprobs?.[index] ?? 0, // OpenAI gives null to a first token that nothing came before
    bytes: null,
    top: Object.entries(top_logprobs?.[index] ?? {})
      .map(([name, logprob]) => ({ text: name, logprob }))
      .sort((a, b) => b.logprob - a.logprob),
  }));
}
