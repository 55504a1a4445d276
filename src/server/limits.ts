/** What a client may take of the server. Bytes, milliseconds and counts. */
export interface ServerLimits {
  /** Largest request body. Default 4 MiB. */
  readonly bodyBytes: number;
  /** Deepest nesting of lists and objects in a body. Default 64. */
  readonly jsonDepth: number;
  /** Request line and headers together. Default 16 KiB. */
  readonly headerBytes: number;
  /** Until a request's headers have arrived. Default 10 s. */
  readonly headersTimeoutMs: number;
  /** Until a request has arrived with its body. Default 60 s. */
  readonly requestTimeoutMs: number;
  /** Connections at once. Default 4,096. */
  readonly connections: number;
  /** From a request's arrival until its answer is complete. Default 10 minutes. */
  readonly deadlineMs: number;
  /** Requests of one API key in progress at once. Default 256. */
  readonly requestsPerKey: number;
  /** Largest max_tokens. Default 2²⁰; the context size limits an answer in any case. */
  readonly maxTokens: number;
  /** max_tokens of a chat completion that names none. Default: until the context is full. */
  readonly defaultMaxTokens: number | undefined;
  /** Answers to one request: n times the prompts. Default 128. */
  readonly choices: number;
  /** Prompts of one completion request. Default 64. */
  readonly prompts: number;
  /** Messages of one chat. Default 4,096. */
  readonly messages: number;
  /** Stop strings. Default 16. */
  readonly stopStrings: number;
  /** Inputs of one embedding request. Default 2,048. */
  readonly inputs: number;
  /**
   * Longest text for each token of the context, in UTF-16 code units: longer ones are refused before they are split
   * into tokens, which takes about a second per megabyte. Default 32; English has 4 to 5.
   */
  readonly textPerToken: number;
  /** What waits for a client that reads too slowly, before its answer pauses. Default 256 KiB. */
  readonly readerBytes: number;
  /** How long it may stay behind. Default 30 s. */
  readonly readerTimeoutMs: number;
  /** Silence in a stream after which a comment is sent, so that proxies keep it open. Default 15 s. */
  readonly keepAliveMs: number;
  /**
   * A stream's status is sent with its first token or after this time, so that what is refused at once (a full queue, a
   * prompt that is too long) gets a status of its own. Default 1 s.
   */
  readonly openAfterMs: number;
}

const defaults: ServerLimits = {
  bodyBytes: 4 * 2 ** 20,
  jsonDepth: 64,
  headerBytes: 16 * 2 ** 10,
  headersTimeoutMs: 10_000,
  requestTimeoutMs: 60_000,
  connections: 4096,
  deadlineMs: 600_000,
  requestsPerKey: 256,
  maxTokens: 2 ** 20,
  defaultMaxTokens: undefined,
  choices: 128,
  prompts: 64,
  messages: 4096,
  stopStrings: 16,
  inputs: 2048,
  textPerToken: 32,
  readerBytes: 256 * 2 ** 10,
  readerTimeoutMs: 30_000,
  keepAliveMs: 15_000,
  openAfterMs: 1000,
};

export function resolveLimits(limits: Partial<ServerLimits> = {}): ServerLimits {
  return Object.freeze({ ...defaults, ...limits });
}
