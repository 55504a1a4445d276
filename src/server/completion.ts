import type { FastifyInstance } from 'fastify';
import type { CompletionRequest } from '../serving/completer.js';
import { responseHead } from './answer.js';
import { type CompletionBody, completionRequests, completionSchema } from './completion-request.js';
import { CompletionStyle } from './completion-response.js';
import { complete, stream } from './job.js';
import { parametersOf } from './sampling-fields.js';
import type { Service } from './service.js';
import { checkStreamOptions } from './stream-options.js';

export function completionRoute(app: FastifyInstance, service: Service): void {
  const { limits, modelName } = service;
  const schema = { body: completionSchema(limits) };
  app.post<{ Body: CompletionBody }>('/v1/completions', { schema }, (request, reply) => {
    const { body } = request;
    const start = {
      operation: 'text_completion',
      stream: body.stream ?? false,
      parameters: parametersOf(body),
    } as const;
    return service.work(request, reply, start, async (scope, model) => {
      service.checkModel(body.model);
      const includeUsage = checkStreamOptions(body);
      const requests = completionRequests(body, limits);
      for (const { prompt } of requests) service.checkLength(prompt);
      const echoed = ({ prompt, tokenIds }: CompletionRequest) => prompt ?? model.decode(tokenIds!);
      const { n = 1 } = body;
      const promptIds: number[][] = [];
      for (const one of body.return_token_ids === true ? requests : []) {
        promptIds.push([...(await model.readPrompt(one, scope.signal))]);
      }
      const style = new CompletionStyle(responseHead('cmpl', modelName, service.fingerprint), {
        logprobs: body.logprobs !== undefined,
        includeUsage,
        n,
        echo: body.echo === true ? requests.map(echoed) : null,
        promptIds: body.return_token_ids === true ? promptIds : null,
      });
      const job = { requests, n, style };
      if (body.stream !== true) return complete(model, job, scope);
      await stream(model, job, scope, reply, { limits, modelName, includeUsage });
      return undefined;
    });
  });
}
