import type { FastifyInstance } from 'fastify';
import { responseHead } from './answer.js';
import { type ChatBody, chatRequest, chatSchema } from './chat-request.js';
import { ChatStyle } from './chat-response.js';
import { complete, stream } from './job.js';
import { parametersOf } from './sampling-fields.js';
import type { Service } from './service.js';
import { checkStreamOptions } from './stream-options.js';

export function chatRoute(app: FastifyInstance, service: Service): void {
  const { limits, modelName } = service;
  app.post<{ Body: ChatBody }>('/v1/chat/completions', { schema: { body: chatSchema(limits) } }, (request, reply) => {
    const { body } = request;
    const start = { operation: 'chat', stream: body.stream ?? false, parameters: parametersOf(body) } as const;
    return service.work(request, reply, start, async (scope, model) => {
      service.checkModel(body.model);
      const includeUsage = checkStreamOptions(body);
      const chat = chatRequest(body, limits);
      service.checkLength([chat.messages, chat.chatTemplateKwargs]);
      const style = new ChatStyle(responseHead('chatcmpl', modelName, service.fingerprint), {
        logprobs: body.logprobs ?? false,
        includeUsage,
        promptIds: body.return_token_ids === true ? [...(await model.readPrompt(chat, scope.signal))] : null,
      });
      const job = { requests: [chat], n: body.n ?? 1, style };
      if (body.stream !== true) return complete(model, job, scope);
      await stream(model, job, scope, reply, { limits, modelName, includeUsage });
      return undefined;
    });
  });
}
