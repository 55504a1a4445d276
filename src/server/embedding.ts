import type { FastifyInstance } from 'fastify';
import { type Static, Type } from 'typebox';
import { inputSchema, inputsOf } from './completion-request.js';
import type { ServerLimits } from './limits.js';
import { either, integer, text } from './schema.js';
import type { Service } from './service.js';
import { checkSupported } from './unsupported.js';

const optional = Type.Optional;
/** Far beyond any model's hidden size. */
const MAX_DIMENSIONS = 65_536;

function embeddingSchema(limits: ServerLimits) {
  return Type.Object({
    model: optional(text(256)),
    input: inputSchema(limits.inputs),
    encoding_format: optional(either('"float" or "base64"', Type.Literal('float'), Type.Literal('base64'))),
    dimensions: optional(integer(1, MAX_DIMENSIONS)),
    user: optional(text(4096)),
    // ours
    pooling: optional(either('"mean" or "last"', Type.Literal('mean'), Type.Literal('last'))),
  });
}

type EmbeddingBody = Static<ReturnType<typeof embeddingSchema>>;

export function embeddingRoute(app: FastifyInstance, service: Service): void {
  const schema = { body: embeddingSchema(service.limits) };
  app.post<{ Body: EmbeddingBody }>('/v1/embeddings', { schema }, (request, reply) => {
    const { body } = request;
    const start = { operation: 'embeddings', stream: false, parameters: { dimensions: body.dimensions } } as const;
    return service.work(request, reply, start, async (scope, model) => {
      service.checkModel(body.model);
      checkSupported('embedding', body);
      const inputs = inputsOf(body.input);
      for (const input of inputs) service.checkLength(input);
      const { dimensions, pooling } = body;
      const { tenant, signal } = scope;
      const { vectors, promptTokens } = await model.embed({ inputs, dimensions, pooling, tenant, signal });
      signal.throwIfAborted();
      scope.promptTokens = promptTokens;
      const encode = body.encoding_format === 'base64' ? base64Of : (vector: Float32Array) => [...vector];
      return {
        object: 'list',
        data: vectors.map((vector, index) => ({ object: 'embedding', index, embedding: encode(vector) })),
        model: service.modelName,
        usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
      };
    });
  });
}

/** Little-endian float32, which is the order of every machine that Node.js runs on but s390x. */
function base64Of(vector: Float32Array): string {
  return Buffer.from(vector.buffer, vector.byteOffset, vector.byteLength).toString('base64');
}
