import { EngineError } from '../base/errors.js';
import { withFile } from '../formats/byte-source.js';
import type { ModelSource } from '../formats/hub.js';
import { ChatTemplate, type TemplateTokens } from '../tokenizer/chat-template.js';
import type { Tokenizer } from '../tokenizer/tokenizer.js';

/** Bytes; four for every character that a template may have. */
const MAX_TEMPLATE_BYTES = 1 << 20;

/**
 * The chat template of a model that is already open, or null if it has none. It is parsed when it is first used.
 *
 * @param path a Jinja file whose template is used in place of the model's own
 */
export function chatTemplateOf(source: ModelSource, tokenizer: Tokenizer | null, path?: string): ChatTemplate | null {
  const tokens = tokensOf(source, tokenizer);
  if (path !== undefined) return ChatTemplate.parse(readTemplate(path), tokens, path);
  if (source.format === 'safetensors' && source.chatTemplateJinja !== undefined) {
    const own = source.chatTemplateJinja;
    return new ChatTemplate(new Map([['default', readTemplate(own)]]), tokens, own);
  }
  const sources = source.format === 'gguf' ? ggufTemplates(source.metadata) : configTemplates(source.tokenizerConfig);
  return sources.size === 0 ? null : new ChatTemplate(sources, tokens, source.path);
}

/** `tokenizer.chat_template`, and `tokenizer.chat_template.NAME` for further ones. */
function ggufTemplates(metadata: ReadonlyMap<string, unknown>): Map<string, string> {
  const prefix = 'tokenizer.chat_template';
  const sources = new Map<string, string>();
  for (const [key, value] of metadata) {
    // Old files name a template that the program is expected to know, such as "chatml".
    if (typeof value !== 'string' || !value.includes('{')) continue;
    if (key === prefix) sources.set('default', value);
    else if (key.startsWith(`${prefix}.`)) sources.set(key.slice(prefix.length + 1), value);
  }
  return sources;
}

/** `chat_template` of tokenizer_config.json: a text, or a list of objects with `name` and `template`. */
function configTemplates(config: Readonly<Record<string, unknown>> | undefined): Map<string, string> {
  const given = config?.chat_template;
  const sources = new Map<string, string>();
  if (typeof given === 'string') sources.set('default', given);
  for (const entry of Array.isArray(given) ? given : []) {
    const { name, template } = entry as Record<string, unknown>;
    if (typeof name === 'string' && typeof template === 'string') sources.set(name, template);
  }
  return sources;
}

function tokensOf(source: ModelSource, tokenizer: Tokenizer | null): TemplateTokens {
  if (source.format === 'safetensors') {
    const named = (key: string) => tokenText(source.tokenizerConfig?.[key]);
    return { bosToken: named('bos_token'), eosToken: named('eos_token') };
  }
  const text = (id: unknown) =>
    tokenizer !== null && typeof id === 'number' && id >= 0 && id < tokenizer.vocabSize
      ? tokenizer.tokenText(id)
      : null;
  return {
    bosToken: text(tokenizer?.bosId),
    eosToken: text(source.metadata.get('tokenizer.ggml.eos_token_id') ?? tokenizer?.eosIds[0]),
  };
}

/** A token of tokenizer_config.json: its text, or an object with it. */
function tokenText(value: unknown): string | null {
  const text = typeof value === 'object' && value !== null ? (value as Record<string, unknown>).content : value;
  return typeof text === 'string' ? text : null;
}

function readTemplate(path: string): string {
  return withFile(path, 'chat template', (file) => {
    if (file.size > MAX_TEMPLATE_BYTES) {
      throw new EngineError('FORMAT_LIMIT', { path, field: 'file size', value: file.size, limit: MAX_TEMPLATE_BYTES });
    }
    const bytes = new Uint8Array(file.size);
    file.read(bytes, 0);
    return new TextDecoder().decode(bytes);
  });
}
