// Answers over HTTP, streamed as server-sent events, from an engine inside this Node process.
import { Readable } from 'node:stream';
import { Engine, EngineError } from 'engine-ts';
import Fastify from 'fastify';

const { HOST = '127.0.0.1', PORT = '8000', MODEL } = process.env;
/** Requests in the engine at once; the next one is told to come back. */
const MAX_REQUESTS = Number(process.env.MAX_REQUESTS ?? 32);
/** Milliseconds that one answer may take. */
const MAX_DURATION = 60_000;
/** Milliseconds that answers under way have to end after SIGTERM. */
const DRAIN_TIME = 10_000;

const app = Fastify({
  logger: { level: process.env.LOG_LEVEL ?? 'info' }, // request ids and status codes; no prompt is logged
  bodyLimit: 64 * 1024, // bytes
  requestTimeout: 10_000, // milliseconds for a client to send its request
  connectionTimeout: MAX_DURATION, // a socket on which nothing moves for so long is closed: its client does not read
  ajv: { customOptions: { removeAdditional: false, coerceTypes: false } }, // what the schema does not know is refused
});

// Loading begins at once and does not hold up listening: until it is done, /health says 503.
let engine = null;
let draining = false;
let requests = 0;
const loading = Engine.load({ model: MODEL, batchSize: 8 }).then((loaded) => {
  engine = loaded;
});

app.get('/health', (_, reply) => {
  if (engine === null || draining) return reply.code(503).send({ status: draining ? 'draining' : 'loading' });
  const { running, waiting } = engine.stats();
  return { status: 'ok', model: engine.model.name, running, waiting };
});

const answer = {
  type: 'object',
  required: ['prompt'],
  additionalProperties: false,
  properties: {
    prompt: { type: 'string', minLength: 1, maxLength: 32_768 },
    maxTokens: { type: 'integer', minimum: 1, maximum: 2048, default: 256 },
    temperature: { type: 'number', minimum: 0, maximum: 2 },
    seed: { type: 'integer', minimum: 0, maximum: 2 ** 31 - 1 },
  },
};

app.post('/answer', { schema: { body: answer } }, async (request, reply) => {
  if (engine === null || draining || requests >= MAX_REQUESTS) {
    return reply
      .code(503)
      .header('retry-after', '1')
      .send({ error: { code: 'BUSY', message: 'come back soon' } });
  }
  requests++;
  const left = new AbortController();
  reply.raw.once('close', () => {
    requests--;
    left.abort(); // does nothing to an answer that has ended; frees the memory of one that has not, within a step
    if (draining) setImmediate(() => app.server.closeIdleConnections()); // its own, which is kept alive otherwise
  });
  const signal = AbortSignal.any([left.signal, AbortSignal.timeout(MAX_DURATION)]);
  const events = engine.generate({ ...request.body, signal });
  const first = await events.next(); // a request that the engine refuses throws here, while a status can still be sent
  reply.header('content-type', 'text/event-stream').header('cache-control', 'no-store');
  // A client that reads slowly is not sent more than a socket's buffer: the stream asks for the next event only then.
  return reply.send(Readable.from(messages(first, events)));
});

async function* messages(first, rest) {
  try {
    for (let next = first; !next.done; next = await rest.next()) {
      const { text, outcome } = next.value;
      if (text !== '') yield message('text', { text });
      if (outcome) yield message('end', { finishReason: outcome.finishReason, usage: outcome.usage });
    }
  } catch (error) {
    if (!(error instanceof EngineError)) app.log.error(error);
    yield message('error', problem(error).body);
  } finally {
    await rest.return();
  }
}

/** https://html.spec.whatwg.org/multipage/server-sent-events.html */
function message(event, data) {
  return `event: ${event}\ndata: ${JSON.stringify(data)}\n\n`;
}

/** What a client may know of an error. Messages of the engine and of the schema say what is wrong and what to do. */
function problem(error) {
  const status = error.status ?? error.statusCode ?? 500;
  const isTold = error instanceof EngineError || status < 500;
  const { code, message } = isTold ? error : { code: 'INTERNAL', message: 'something went wrong here; see the log' };
  return { status, body: { error: { code, message } } };
}

app.setErrorHandler((error, request, reply) => {
  const { status, body } = problem(error);
  if (status >= 500) request.log.error(error);
  return reply.code(status).send(body);
});

for (const signal of ['SIGTERM', 'SIGINT']) {
  process.on(signal, async () => {
    if (draining) process.exit(1); // a second signal does not wait
    draining = true;
    setTimeout(() => app.server.closeAllConnections(), DRAIN_TIME).unref(); // ends the answers that are left
    await app.close(); // takes no new connections, and waits for the answers under way
    await loading.catch(() => undefined);
    await engine?.dispose();
  });
}

await app.listen({ host: HOST, port: Number(PORT) });
console.log(`listening on http://${HOST}:${app.server.address().port}`);
await loading; // a model that cannot be loaded ends the program
