import { EngineError } from '../base/errors.js';

/** A field that the server knows and cannot honour, unless its value asks for nothing. */
interface Unsupported {
  readonly asksNothing: (value: unknown, body: Readonly<Record<string, unknown>>) => boolean;
  readonly remedy: string;
}

const leaveOut = 'leave it out';
const off = (value: unknown) => value === false;
const on = (value: unknown) => value === true;
const zero = (value: unknown) => value === 0;
const emptyList = (value: unknown) => Array.isArray(value) && value.length === 0;
const never = () => false;

/** Tools are never called; with tool_choice "none" nobody expects them to be. */
const toolsOff = (value: unknown, body: Readonly<Record<string, unknown>>) =>
  emptyList(value) || body.tool_choice === 'none';

/** vLLM's and llama.cpp's, which make another prompt or other answers: to drop one silently would be worse than to refuse it. */
const generationFields: Readonly<Record<string, Unsupported>> = {
  min_tokens: { asksNothing: zero, remedy: leaveOut },
  stop_token_ids: { asksNothing: emptyList, remedy: 'leave it out, or name the texts in stop' },
  include_stop_str_in_output: { asksNothing: off, remedy: 'set it to false' },
  bad_words: { asksNothing: emptyList, remedy: 'leave it out, or use logit_bias' },
  allowed_token_ids: { asksNothing: emptyList, remedy: 'leave it out, or use logit_bias' },
  skip_special_tokens: { asksNothing: on, remedy: 'set it to true' },
  use_beam_search: { asksNothing: off, remedy: 'set it to false' },
  prompt_logprobs: { asksNothing: never, remedy: leaveOut },
  truncate_prompt_tokens: { asksNothing: never, remedy: 'leave it out, and send what fits' },
  mirostat: { asksNothing: zero, remedy: 'set it to 0' },
  dry_multiplier: { asksNothing: zero, remedy: 'set it to 0' },
  xtc_probability: { asksNothing: zero, remedy: 'set it to 0' },
  lora: { asksNothing: emptyList, remedy: leaveOut },
};

/** Of what makes a prompt of messages. */
const templateFields: Readonly<Record<string, Unsupported>> = {
  chat_template: { asksNothing: never, remedy: 'leave it out, or start the server with --chat-template' },
  documents: { asksNothing: emptyList, remedy: leaveOut },
  add_generation_prompt: { asksNothing: on, remedy: 'leave it out, or set it to true' },
  continue_final_message: { asksNothing: off, remedy: 'set it to false' },
};

const chatFields: Readonly<Record<string, Unsupported>> = {
  tools: { asksNothing: toolsOff, remedy: 'leave it out, or set tool_choice to "none"' },
  tool_choice: {
    asksNothing: (value) => value === 'none' || value === 'auto',
    remedy: 'leave it out, or set it to "none"',
  },
  functions: {
    asksNothing: (value, body) => emptyList(value) || body.function_call === 'none',
    remedy: 'leave it out, or set function_call to "none"',
  },
  function_call: { asksNothing: (value) => value === 'none' || value === 'auto', remedy: 'set it to "none"' },
  response_format: {
    asksNothing: (value) => (value as { type?: unknown } | null)?.type === 'text',
    remedy: 'leave it out, or set its type to "text"',
  },
  modalities: {
    asksNothing: (value) => Array.isArray(value) && value.every((modality) => modality === 'text'),
    remedy: 'set it to ["text"]',
  },
  audio: { asksNothing: never, remedy: leaveOut },
  store: { asksNothing: off, remedy: 'set it to false' },
  verbosity: { asksNothing: (value) => value === 'medium', remedy: leaveOut },
  web_search_options: { asksNothing: never, remedy: leaveOut },
  moderation: { asksNothing: never, remedy: leaveOut },
  ...generationFields,
  ...templateFields,
  // vLLM's and llama.cpp's constraints
  grammar: { asksNothing: (value) => value === '', remedy: leaveOut },
  json_schema: { asksNothing: never, remedy: leaveOut },
  structured_outputs: { asksNothing: never, remedy: leaveOut },
  guided_json: { asksNothing: never, remedy: leaveOut },
  guided_regex: { asksNothing: never, remedy: leaveOut },
  guided_choice: { asksNothing: never, remedy: leaveOut },
  guided_grammar: { asksNothing: never, remedy: leaveOut },
};

const completionFields: Readonly<Record<string, Unsupported>> = {
  ...chatFields,
  suffix: { asksNothing: (value) => value === '', remedy: leaveOut },
  best_of: {
    asksNothing: (value, body) => value === (body.n ?? 1),
    remedy: 'set it to n: answers are not ranked here',
  },
  logprobs: {
    asksNothing: (_, body) => body.echo !== true,
    remedy: 'leave it out, or echo: log-probabilities are of generated tokens only',
  },
};

const tokenizeFields: Readonly<Record<string, Unsupported>> = {
  parse_special: { asksNothing: off, remedy: 'leave it out: special tokens written in a text are ordinary text here' },
  with_pieces: { asksNothing: off, remedy: leaveOut },
  return_token_strs: { asksNothing: off, remedy: leaveOut },
  tools: { asksNothing: emptyList, remedy: leaveOut },
  ...templateFields,
};

/** vLLM's, llama.cpp's and those of servers for embeddings alone. */
const embeddingFields: Readonly<Record<string, Unsupported>> = {
  truncate_prompt_tokens: { asksNothing: never, remedy: 'leave it out, and send what fits' },
  truncate: { asksNothing: off, remedy: 'set it to false, and send what fits' },
  normalize: { asksNothing: on, remedy: 'leave it out: vectors have the length 1' },
  embd_normalize: { asksNothing: (value) => value === 2, remedy: 'leave it out: vectors have the length 1' },
  add_special_tokens: { asksNothing: on, remedy: 'set it to true, or send token ids' },
};

const tables = {
  chat: chatFields,
  completion: completionFields,
  tokenize: tokenizeFields,
  embedding: embeddingFields,
};

/** Throws PARAMETER_UNSUPPORTED for the first field that asks for what the server cannot do. */
export function checkSupported(kind: keyof typeof tables, body: Readonly<Record<string, unknown>>): void {
  for (const [parameter, { asksNothing, remedy }] of Object.entries<Unsupported>(tables[kind])) {
    const value = Object.hasOwn(body, parameter) ? body[parameter] : undefined;
    if (value === undefined || asksNothing(value, body)) continue;
    throw new EngineError('PARAMETER_UNSUPPORTED', { parameter, value, remedy });
  }
}
