// A small HTTP service with the engine inside the Node process: no other server, no Python.
//
//   node docs/examples/story-service.mjs
//   curl -N localhost:8000/story -d '{"prompt": "Once upon a time", "maxTokens": 80}'
//
// Text is streamed as it is generated; a client that hangs up stops its generation; wrong input is a 400 with the
// engine's own message; requests that come at once share the engine's batches.
import { createServer } from 'node:http';
import { Engine, EngineError } from 'engine-ts';

/** Bytes of a request body. */
const MAX_BODY = 64 * 1024;

const engine = await Engine.load({ model: process.env.MODEL });

const server = createServer(async (request, response) => {
  if (request.method !== 'POST' || request.url !== '/story') {
    response.writeHead(404).end('POST /story\n');
    return;
  }
  const hungUp = new AbortController();
  response.on('close', () => hungUp.abort());
  try {
    const { prompt, maxTokens = 100, temperature, seed } = JSON.parse(await bodyOf(request)) ?? {};
    for await (const { text } of engine.generate({ prompt, maxTokens, temperature, seed, signal: hungUp.signal })) {
      // The first event has arrived, so the request was valid: from here on the status is 200.
      if (!response.headersSent) response.writeHead(200, { 'content-type': 'text/plain; charset=utf-8' });
      response.write(text);
    }
    response.end();
  } catch (error) {
    const known = error instanceof EngineError || error instanceof SyntaxError;
    if (!known) console.error(error);
    if (!response.headersSent)
      response.writeHead(error.status ?? (known ? 400 : 500), { 'content-type': 'text/plain' });
    response.end(known ? `${error.message}\n` : 'internal error\n');
  }
});

async function bodyOf(request) {
  let body = '';
  for await (const chunk of request.setEncoding('utf8')) {
    body += chunk;
    if (body.length > MAX_BODY) throw new SyntaxError(`the body is longer than ${MAX_BODY} bytes`);
  }
  return body;
}

server.listen(Number(process.env.PORT ?? 8000), '127.0.0.1', () => {
  console.log(`listening on http://127.0.0.1:${server.address().port}`);
});

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, () => {
    server.close(() => engine.dispose());
    server.closeIdleConnections();
  });
}
