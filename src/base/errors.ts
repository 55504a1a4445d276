/**
 * Every error a user can meet, in one table: code, HTTP status, who has to act, and the message.
 *
 * A message is one line: what is wrong, with the value; then, after a semicolon, what to do about it.
 * `throw new EngineError('FILE_NOT_FOUND', { path })` is the only way user mistakes are reported;
 * our own mistakes go through `invariant()`.
 */

/** Who can fix it. Decides the exit code of the program: user 2, engine 1, interrupt 130. */
export type Blame = 'user' | 'engine' | 'interrupt';

interface ErrorRow {
  readonly status: number;
  readonly blame: Blame;
  // Each row types its own parameters; `never` lets rows with different parameters share one table type.
  readonly message: (parameters: never) => string;
}

const table = {
  // --- files and formats
  FILE_NOT_FOUND: {
    status: 404,
    blame: 'user',
    message: (p: { path: string; what: string }) => `${p.what} ${p.path} does not exist; check the path`,
  },
  FILE_UNREADABLE: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; reason: string }) =>
      `cannot read ${p.path}: ${p.reason}; check that it is a readable file`,
  },
  FILE_UNWRITABLE: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; reason: string }) => `cannot write ${p.path}: ${p.reason}; give another path`,
  },
  MODEL_NOT_FOUND: {
    status: 404,
    blame: 'user',
    message: (p: { path: string }) =>
      `${p.path} holds no model; give a .gguf file, a .safetensors file, or a folder with config.json and *.safetensors`,
  },
  EMBEDDED_MODEL_MISSING: {
    status: 404,
    blame: 'user',
    message: (p: { places: readonly string[] }) =>
      `the embedded model is not at ${p.places.join(' nor at ')}; name another with the option model, or put it there`,
  },
  MODEL_AMBIGUOUS: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; files: readonly string[] }) =>
      `${p.path} holds several models: ${clip(p.files.join(', '))}; give the path of one of them`,
  },
  FILE_CHANGED: {
    status: 409,
    blame: 'user',
    message: (p: { path: string }) => `${p.path} has changed since the model was opened; load the model again`,
  },
  PROMPT_CACHE_INVALID: {
    status: 409,
    blame: 'user',
    message: (p: { path: string; problem: string }) =>
      `saved prompt ${p.path} cannot be used: ${p.problem}; delete it, it will be made again`,
  },
  FORMAT_UNKNOWN: {
    status: 400,
    blame: 'user',
    message: (p: { path: string }) =>
      `${p.path} is neither GGUF nor safetensors; give a model file in one of these formats`,
  },
  FORMAT_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; field: string; value: unknown; problem: string }) =>
      `${p.path}: ${clip(p.field)} is ${formatValue(p.value)}, ${p.problem}; the file is damaged or hostile, get it again from its source`,
  },
  FORMAT_LIMIT: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; field: string; value: unknown; limit: number }) =>
      `${p.path}: ${clip(p.field)} is ${formatValue(p.value)}, more than the limit of ${p.limit}; the file is damaged or hostile, get it again from its source`,
  },
  DTYPE_UNSUPPORTED: {
    status: 400,
    blame: 'user',
    message: (p: { tensor: string; dtype: string; supported: string }) =>
      `tensor ${clip(p.tensor)} is stored as ${clip(p.dtype)}, which is not supported; supported: ${p.supported}`,
  },
  ARCHITECTURE_UNSUPPORTED: {
    status: 400,
    blame: 'user',
    message: (p: { architecture: string; supported: string }) =>
      `architecture ${p.architecture} is not supported; supported: ${p.supported}`,
  },
  CONFIG_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; field: string; value: unknown; problem: string }) =>
      `${p.path}: ${clip(p.field)} is ${formatValue(p.value)}, ${p.problem}; correct the model's configuration`,
  },
  WEIGHT_NOT_FINITE: {
    status: 400,
    blame: 'user',
    message: (p: { tensor: string; row: number; column: number; value: string }) =>
      `tensor ${clip(p.tensor)} is ${p.value} in row ${p.row}, column ${p.column}, which cannot be quantised; the file is damaged or its training failed, get it again from its source`,
  },
  CALIBRATION_TOO_SHORT: {
    status: 400,
    blame: 'user',
    message: (p: { tokens: number; needed: number }) =>
      `the calibration text has ${p.tokens} tokens, but at least ${p.needed} are needed; give a longer text`,
  },
  CALIBRATION_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { tensor: string }) =>
      `inputs of tensor ${clip(p.tensor)} are not finite on the calibration text; give another text, or use --method rtn`,
  },
  TENSOR_MISSING: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; tensor: string }) =>
      `${p.path} has no tensor ${p.tensor}; the file is incomplete, get it again from its source`,
  },
  TENSOR_SHAPE: {
    status: 400,
    blame: 'user',
    message: (p: { tensor: string; shape: readonly number[]; expected: readonly number[] }) =>
      `tensor ${p.tensor} has shape [${p.shape.join(', ')}], expected [${p.expected.join(', ')}]; the weights do not belong to this configuration`,
  },
  TENSOR_UNEXPECTED: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; tensor: string; architecture: string }) =>
      `${p.path} has a tensor ${clip(p.tensor)}, which architecture ${p.architecture} does not use; the model is a variant that is not supported`,
  },
  TOKENIZER_MISSING: {
    status: 400,
    blame: 'user',
    message: (p: { path: string }) =>
      `${p.path} has no tokenizer; put tokenizer.json beside it, or pass token ids instead of text`,
  },
  TOKENIZER_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; problem: string }) =>
      `${p.path}: the tokenizer is not usable: ${p.problem}; get the file again from its source`,
  },

  // --- chat
  CHAT_TEMPLATE_MISSING: {
    status: 400,
    blame: 'user',
    message: (p: { path: string }) =>
      `${p.path} has no chat template; give it a prompt (engine generate), another model (-m), or a template (--chat-template)`,
  },
  CHAT_TEMPLATE_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; problem: string }) =>
      `${p.path}: the chat template cannot be used: ${p.problem.slice(0, 200)}; correct it, or give another one (--chat-template)`,
  },
  CHAT_TEMPLATE_LIMIT: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; limit: number; what: string }) =>
      `${p.path}: the chat template exceeds ${p.limit} ${p.what}; shorten the conversation, or give another template (--chat-template)`,
  },
  CHAT_TEMPLATE_REFUSED: {
    status: 400,
    blame: 'user',
    message: (p: { path: string; reason: string }) =>
      `${p.path}: the chat template refuses these messages: ${p.reason.slice(0, 200)}; change the messages`,
  },

  // --- requests
  OPTION_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { option: string; value: unknown; expected: string }) =>
      `${p.option} is ${formatValue(p.value)}; expected ${p.expected}`,
  },
  PROMPT_EMPTY: {
    status: 400,
    blame: 'user',
    message: (p: { input?: number }) =>
      `${p.input === undefined ? 'the prompt' : `input ${p.input}`} is empty; give at least one character of text or one token id`,
  },
  NO_TOKEN_ALLOWED: {
    status: 400,
    blame: 'user',
    message: (p: { position: number }) =>
      `no token is allowed at position ${p.position}: every logit is -Infinity or NaN; relax the bias, or check the weights`,
  },
  PROMPT_TOO_LONG: {
    status: 400,
    blame: 'user',
    message: (p: ({ tokens: number } | { moreThan: number }) & { limit: number; input?: number }) =>
      `${p.input === undefined ? 'prompt' : `input ${p.input}`} has ${'tokens' in p ? p.tokens : `more than ${p.moreThan}`} tokens; the context allows ${p.limit}; shorten it or load the model with a larger context size`,
  },
  PROMPT_TEXT_TOO_LONG: {
    status: 400,
    blame: 'user',
    message: (p: { characters: number; limit: number; contextSize: number }) =>
      `prompt has ${p.characters} characters; for a context of ${p.contextSize} tokens at most ${p.limit} are read; shorten it or load the model with a larger context size`,
  },
  TOKEN_ID_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { id: number; index: number; vocabSize: number; input?: number }) =>
      `token id ${p.id} at index ${p.index}${p.input === undefined ? '' : ` of input ${p.input}`} is outside the vocabulary; use ids from 0 to ${p.vocabSize - 1}`,
  },
  TEXT_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { what: string; offset: number }) =>
      `${p.what} is not valid UTF-8 at byte ${p.offset}; convert it to UTF-8 first`,
  },
  TEXT_TOO_SHORT: {
    status: 400,
    blame: 'user',
    message: (p: { tokens: number; needed: number }) =>
      `the text to evaluate has ${p.tokens} tokens, but a score needs at least ${p.needed}; give a longer text`,
  },
  LOGITS_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { model: string; window: number; position: number; problem: string }) =>
      `${p.model}: ${p.problem} at position ${p.position} of window ${p.window} (both from 0); check the weights, or use --activations f32`,
  },
  EMBEDDING_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { input: number }) =>
      `the vector of input ${p.input} is not finite; check the weights, or load the model with activations f32`,
  },
  VOCABULARY_MISMATCH: {
    status: 400,
    blame: 'user',
    message: (p: { model: string; reference: string; problem: string }) =>
      `${p.model} and ${p.reference} cannot be compared: ${clip(p.problem)}; give two models with the same vocabulary`,
  },
  SAVED_EVALUATION_UNUSABLE: {
    status: 409,
    blame: 'user',
    message: (p: { problem: string }) =>
      `the saved evaluation cannot be resumed: ${p.problem.slice(0, 300)}; repeat what it was begun with, or save this one elsewhere`,
  },
  ABORTED: {
    status: 499,
    blame: 'interrupt',
    message: (_: Record<never, never>) => 'the request was aborted; nothing else was affected',
  },

  // --- server
  PARAMETER_UNSUPPORTED: {
    status: 400,
    blame: 'user',
    message: (p: { parameter: string; value: unknown; remedy: string }) =>
      `${clip(p.parameter)} is ${formatValue(p.value)}, which this server cannot honour; ${p.remedy}`,
  },
  BODY_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { problem: string }) => `the request body ${p.problem}; send one JSON object`,
  },
  BODY_TOO_LARGE: {
    status: 413,
    blame: 'user',
    message: (p: { limit: number }) => `the request body is larger than the limit of ${p.limit} bytes; send less`,
  },
  MEDIA_TYPE_UNSUPPORTED: {
    status: 415,
    blame: 'user',
    message: (p: { type: string | undefined }) =>
      `the content type is ${formatValue(p.type)}; send JSON with content-type: application/json`,
  },
  HTTP_INVALID: {
    status: 400,
    blame: 'user',
    message: (p: { problem: string }) => `the request is not valid HTTP: ${clip(p.problem)}; correct the client`,
  },
  HEADERS_TOO_LARGE: {
    status: 431,
    blame: 'user',
    message: (p: { limit: number }) =>
      `the request line and headers are larger than the limit of ${p.limit} bytes; send less`,
  },
  CLIENT_TOO_SLOW: {
    status: 408,
    blame: 'user',
    message: (p: { seconds: number; what: string }) =>
      `the client took longer than ${p.seconds} s to ${p.what}; try again on a faster connection`,
  },
  ROUTE_UNKNOWN: {
    status: 404,
    blame: 'user',
    message: (p: { method: string; path: string }) =>
      `there is no route ${p.method} ${clip(p.path)}; check the base URL, which ends in /v1 for OpenAI's clients`,
  },
  METHOD_UNKNOWN: {
    status: 405,
    blame: 'user',
    message: (p: { method: string; path: string; allowed: string }) =>
      `${p.method} is not allowed on ${clip(p.path)}; use ${p.allowed}`,
  },
  HOST_REFUSED: {
    status: 403,
    blame: 'user',
    message: (p: { host: string | undefined }) =>
      `the Host header is ${formatValue(p.host)}, but without an API key this server answers only to localhost; use http://127.0.0.1, or start it with an API key`,
  },
  API_KEY_INVALID: {
    status: 401,
    blame: 'user',
    message: (p: { given: boolean }) =>
      `${p.given ? 'the API key is unknown to this server' : 'no API key was given'}; send the header Authorization: Bearer KEY`,
  },
  MODEL_UNKNOWN: {
    status: 404,
    blame: 'user',
    message: (p: { model: string; served: readonly string[] }) =>
      `the model ${formatValue(p.model)} is not served here; use ${p.served.slice(0, 8).map(clip).join(' or ')}`,
  },
  KEY_BUSY: {
    status: 429,
    blame: 'user',
    message: (p: { limit: number }) =>
      `this API key has ${p.limit} requests in progress, which is its limit; wait for one to end`,
  },
  DEADLINE_EXCEEDED: {
    status: 504,
    blame: 'user',
    message: (p: { seconds: number }) =>
      `the answer was not complete after ${p.seconds} s, the most a request may take; ask for fewer tokens, or try again later`,
  },
  MODEL_LOADING: {
    status: 503,
    blame: 'user',
    message: (_: Record<never, never>) => 'the model is being loaded; try again in a moment',
  },
  MODEL_UNAVAILABLE: {
    status: 503,
    blame: 'user',
    message: (p: { reason: string }) =>
      `the model could not be loaded: ${p.reason.slice(0, 300)}; correct that and start the server again`,
  },
  ENGINE_FAILING: {
    status: 503,
    blame: 'engine',
    message: (p: { steps: number; reason: string }) =>
      `the engine does not work: its last ${p.steps === 1 ? 'step has' : `${p.steps} steps have`} failed, with ${p.reason.slice(0, 300)}; if this lasts, start the server again`,
  },
  SHUTTING_DOWN: {
    status: 503,
    blame: 'user',
    message: (_: Record<never, never>) => 'the server is shutting down; try again in a moment',
  },

  LISTEN_FAILED: {
    status: 503,
    blame: 'user',
    message: (p: { host: string; port: number; reason: string }) =>
      `cannot listen on ${clip(p.host)} port ${p.port}: ${clip(p.reason)}; choose another --port or --host`,
  },

  // --- benchmarks
  DEPENDENCY_MISSING: {
    status: 503,
    blame: 'user',
    message: (p: { dependency: string; purpose: string; install: string }) =>
      `${p.dependency} is not installed, which ${p.purpose} needs; run ${p.install}`,
  },
  TOKENS_DIFFER: {
    status: 500,
    blame: 'engine',
    message: (p: { what: string; first: string; second: string }) =>
      `greedy tokens of ${p.what} differ, so nothing was timed: ${clip(p.first)} and ${clip(p.second)}; check the model`,
  },
  OPPONENT_FAILED: {
    status: 500,
    blame: 'user',
    message: (p: { opponent: string; reason: string }) =>
      `${p.opponent} failed: ${p.reason.slice(0, 300)}; check that it runs by itself`,
  },

  // --- engine and machine
  DISPOSED: {
    status: 503,
    blame: 'user',
    message: (p: { what: string }) => `${p.what} was disposed; load it again before using it`,
  },
  BACKEND_UNAVAILABLE: {
    status: 503,
    blame: 'user',
    message: (p: { backend: string; reason: string }) => `backend ${p.backend} is not available: ${p.reason}`,
  },
  DEVICE_UNSUPPORTED: {
    status: 503,
    blame: 'user',
    message: (p: { device: string; what: string; supported: string }) =>
      `the kernels for ${p.device} cannot run ${p.what}; supported: ${p.supported}; use the backend native-cpu`,
  },
  DEVICE_FAILED: {
    status: 503,
    blame: 'engine',
    message: (p: { device: string; problem: string }) =>
      `${p.device} has failed: ${p.problem}; start the program again, or use the backend native-cpu`,
  },
  QUEUE_FULL: {
    status: 503,
    blame: 'user',
    message: (p: { waiting: number; limit: number }) =>
      `${p.waiting} requests are waiting already, the limit is ${p.limit}; try again later`,
  },
  OUT_OF_MEMORY: {
    status: 503,
    blame: 'user',
    message: (p: { bytes: number; what: string }) =>
      `${p.what} needs ${p.bytes} bytes, which could not be allocated; use a smaller context size or model`,
  },
  INTERNAL: {
    status: 500,
    blame: 'engine',
    message: (p: { problem: string }) => `${p.problem}; this is a fault of engine-ts, please report it`,
  },
} as const satisfies Record<string, ErrorRow>;

export type ErrorCode = keyof typeof table;
export type ErrorParameters<C extends ErrorCode> = Parameters<(typeof table)[C]['message']>[0];

/** Longest piece of a user's value quoted in a message, in UTF-16 code units. */
const MAX_QUOTED = 80;

function clip(text: string): string {
  return text.length > MAX_QUOTED ? `${text.slice(0, MAX_QUOTED)}…` : text;
}

/** Never calls a method of the value: it may come from a file, with a `toString` of its own. */
function formatValue(value: unknown): string {
  if (value === undefined) return 'missing';
  if (typeof value === 'string') return JSON.stringify(clip(value));
  if (Array.isArray(value) || ArrayBuffer.isView(value)) return `a list of ${(value as ArrayLike<unknown>).length}`;
  if (typeof value === 'object' && value !== null) return 'an object';
  return clip(String(value));
}

/** Control characters from files and requests never reach a terminal or a log. */
function oneLine(text: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: removing them is the point
  return text.replace(/[\u0000-\u001f\u007f-\u009f\u2028\u2029]+/g, ' ');
}

export class EngineError<C extends ErrorCode = ErrorCode> extends Error {
  override readonly name = 'EngineError';
  readonly status: number;
  readonly blame: Blame;

  constructor(
    readonly code: C,
    readonly parameters: ErrorParameters<C>,
    options?: { cause?: unknown },
  ) {
    const row: ErrorRow = table[code];
    super(oneLine(row.message(parameters as never)), options);
    this.status = row.status;
    this.blame = row.blame;
  }
}

/** A condition only a fault of ours can break. */
export function invariant(condition: unknown, problem: string): asserts condition {
  if (!condition) throw new EngineError('INTERNAL', { problem });
}
