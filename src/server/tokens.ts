import type { FastifyInstance } from 'fastify';
import { type Static, Type } from 'typebox';
import { EngineError } from '../base/errors.js';
import { chatMessages, messagesSchema } from './chat-request.js';
import type { ServerLimits } from './limits.js';
import type { Operation } from './observer.js';
import { anyObject, anyText, flag, list, text, tokenId } from './schema.js';
import type { Service } from './service.js';
import { checkSupported } from './unsupported.js';

const optional = Type.Optional;
/** Most token ids to be read as text at once. */
const MAX_TOKENS = 2 ** 18;

function tokenizeSchema(limits: ServerLimits) {
  return Type.Object({
    model: optional(text(256)),
    content: optional(anyText()), // llama.cpp's name
    prompt: optional(anyText()), // vLLM's
    messages: optional(messagesSchema(limits)),
    add_special: optional(flag()),
    add_special_tokens: optional(flag()),
    chat_template_kwargs: optional(anyObject()),
  });
}

const detokenizeSchema = Type.Object({
  model: optional(text(256)),
  tokens: list(tokenId(), 0, MAX_TOKENS, 'token ids'),
});

function templateSchema(limits: ServerLimits) {
  return Type.Object({
    model: optional(text(256)),
    messages: messagesSchema(limits),
    chat_template_kwargs: optional(anyObject()),
  });
}

type TokenizeBody = Static<ReturnType<typeof tokenizeSchema>>;
type DetokenizeBody = Static<typeof detokenizeSchema>;
type TemplateBody = Static<ReturnType<typeof templateSchema>>;

/** Bodies and answers of llama.cpp and of vLLM at once: each finds the fields that it knows. */
export function tokenRoutes(app: FastifyInstance, service: Service): void {
  const { limits } = service;

  app.post<{ Body: TokenizeBody }>('/tokenize', { schema: { body: tokenizeSchema(limits) } }, (request, reply) => {
    const { body } = request;
    return service.work(request, reply, startOf('tokenize'), async ({ signal }, model) => {
      service.checkModel(body.model);
      checkSupported('tokenize', body);
      const tokens = [...(await idsOf(service, body, signal))];
      return { tokens, count: tokens.length, max_model_len: model.contextSize };
    });
  });

  app.post<{ Body: DetokenizeBody }>('/detokenize', { schema: { body: detokenizeSchema } }, (request, reply) => {
    const { body } = request;
    return service.work(request, reply, startOf('detokenize'), async (_, model) => {
      service.checkModel(body.model);
      const content = model.decode(body.tokens);
      return { content, prompt: content };
    });
  });

  const template = { schema: { body: templateSchema(limits) } };
  app.post<{ Body: TemplateBody }>('/apply-template', template, (request, reply) => {
    const { body } = request;
    return service.work(request, reply, startOf('apply_template'), async (_, model) => {
      service.checkModel(body.model);
      checkSupported('tokenize', body);
      return { prompt: model.applyTemplate(chatOf(service, body)) };
    });
  });
}

function startOf(operation: Operation) {
  return { operation, stream: false, parameters: {} };
}

function idsOf(service: Service, body: TokenizeBody, signal: AbortSignal): Int32Array | Promise<Int32Array> {
  const { messages, content, prompt } = body;
  const given = [messages, content, prompt].filter((field) => field !== undefined).length;
  if (given !== 1) {
    const expected = 'exactly one of prompt, content and messages';
    throw new EngineError('OPTION_INVALID', { option: 'prompt', value: prompt, expected });
  }
  if (messages !== undefined) return service.model.readPrompt(chatOf(service, { ...body, messages }), signal);
  const all = (content ?? prompt)!;
  service.checkLength(all);
  // llama.cpp adds nothing unless told to, vLLM adds unless told not to.
  const addSpecialTokens = body.add_special ?? body.add_special_tokens ?? content === undefined;
  return service.model.readText(all, { addSpecialTokens }, signal);
}

function chatOf(service: Service, { messages, chat_template_kwargs }: TemplateBody) {
  const chat = chatMessages(messages);
  service.checkLength([chat, chat_template_kwargs]);
  return { messages: chat, chatTemplateKwargs: { ...chat_template_kwargs } };
}
