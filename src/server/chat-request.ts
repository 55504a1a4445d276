import { type Static, Type } from 'typebox';
import { EngineError } from '../base/errors.js';
import type { CompletionRequest } from '../serving/completer.js';
import type { ServerLimits } from './limits.js';
import { samplingFields, samplingOf } from './sampling-fields.js';
import { anyObject, anyText, either, flag, integer, list, object, text } from './schema.js';
import { checkSupported } from './unsupported.js';

const optional = Type.Optional;
const MAX_PARTS = 1024;

const part = object('an object with a type', {
  type: text(64),
  text: optional(anyText()),
  refusal: optional(anyText()),
});

export const messageSchema = object('an object with a role', {
  role: text(64),
  content: optional(
    either('a string, or a list of text parts', anyText(), Type.Array(part, { maxItems: MAX_PARTS }), Type.Null()),
  ),
});

export type Message = Static<typeof messageSchema>;

export function messagesSchema(limits: ServerLimits) {
  return list(messageSchema, 1, limits.messages, 'messages');
}

export function chatSchema(limits: ServerLimits) {
  return Type.Object({
    ...samplingFields(limits),
    messages: messagesSchema(limits),
    max_completion_tokens: optional(integer(1, limits.maxTokens)),
    logprobs: optional(flag()),
    top_logprobs: optional(integer(0, 20)),
    reasoning_effort: optional(text(64)),
    chat_template_kwargs: optional(anyObject()),
  });
}

export type ChatBody = Static<ReturnType<typeof chatSchema>>;

/** Throws PARAMETER_UNSUPPORTED and OPTION_INVALID. */
export function chatRequest(body: ChatBody, limits: ServerLimits): CompletionRequest {
  checkSupported('chat', body);
  if (body.top_logprobs !== undefined && body.logprobs !== true) {
    const { top_logprobs: value } = body;
    throw new EngineError('OPTION_INVALID', { option: 'top_logprobs', value, expected: 'logprobs: true beside it' });
  }
  return {
    ...samplingOf(body),
    messages: chatMessages(body.messages),
    chatTemplateKwargs: {
      ...(body.reasoning_effort !== undefined && { reasoning_effort: body.reasoning_effort }),
      ...body.chat_template_kwargs,
    },
    maxTokens: body.max_completion_tokens ?? body.max_tokens ?? limits.defaultMaxTokens,
    logprobs: body.logprobs === true ? (body.top_logprobs ?? 0) : undefined,
  };
}

/** Fields of a message beside role and content that templates read. */
const passedOn = ['name', 'tool_calls', 'tool_call_id', 'reasoning_content'] as const;

/** Messages as templates know them: text for parts, and `system` for what newer models call `developer`. */
export function chatMessages(messages: readonly Message[]): NonNullable<CompletionRequest['messages']> {
  return messages.map((message, index) => {
    const given: Readonly<Record<string, unknown>> = message;
    const fields = passedOn.filter((name) => given[name] !== undefined && given[name] !== null);
    return {
      role: message.role === 'developer' ? 'system' : message.role,
      content: textOf(message.content ?? '', `messages[${index}].content`),
      ...Object.fromEntries(fields.map((name) => [name, given[name]])),
    };
  });
}

function textOf(content: NonNullable<Message['content']>, path: string): string {
  if (typeof content === 'string') return content;
  const texts = content.map(({ type, text, refusal }, index) => {
    if (type === 'text' && text !== undefined) return text;
    if (type === 'refusal' && refusal !== undefined) return refusal;
    const parameter = `${path}[${index}].type`;
    throw new EngineError('PARAMETER_UNSUPPORTED', {
      parameter,
      value: type,
      remedy: 'send parts with type "text" and text',
    });
  });
  return texts.join('\n');
}
