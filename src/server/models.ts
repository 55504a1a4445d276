import type { FastifyInstance } from 'fastify';
import type { Service } from './service.js';

/** The model under each of its names, as OpenAI lists models; max_model_len is vLLM's. */
export function modelRoutes(app: FastifyInstance, service: Service): void {
  const entry = (id: string) => ({
    id,
    object: 'model',
    created: service.created,
    owned_by: 'engine-ts',
    max_model_len: service.model.contextSize,
  });

  app.get('/v1/models', async () => ({ object: 'list', data: service.modelNames.map(entry) }));

  // Names of models have slashes in them, which not every client escapes.
  app.get<{ Params: { '*': string } }>('/v1/models/*', async ({ params: { '*': name } }) => {
    service.checkModel(name);
    return entry(name);
  });
}
