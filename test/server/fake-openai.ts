import { once } from 'node:events';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import Fastify from 'fastify';
import { playground } from '../../src/server/playground.js';

export interface FakeOptions {
  /** The only key that is accepted; without one none is needed. */
  readonly key?: string;
  /** Without it chat completions are refused. Default true. */
  readonly chatTemplate?: boolean;
  /** Milliseconds between tokens. */
  readonly pace?: number;
}

export interface FakeServer {
  readonly url: string;
  /** Bodies of the POST requests so far. */
  readonly bodies: Record<string, unknown>[];
  /** How many clients went away before their answer was complete. */
  readonly aborted: () => number;
  readonly close: () => Promise<void>;
}

interface FakeToken {
  readonly token: string;
  readonly bytes: number[];
  readonly logprob: number;
  readonly top_logprobs: { readonly token: string; readonly logprob: number; readonly bytes: number[] }[];
}

const story =
  'Once there was a small lighthouse at the edge of a quiet sea. Every evening, when the sky turned the colour of ' +
  'honey, an old keeper climbed its ninety-nine steps and lit the lamp.\n\nOne night a storm came. The waves were as ' +
  'tall as houses, and far away a little boat had lost its way. The keeper did not sleep. He turned the lamp by hand, ' +
  'round and round, until the morning came and the boat was safe.';

const sky =
  'Sunlight holds every colour. When it comes through the air, tiny parts of the air send the blue light in all ' +
  'directions, and the red light goes straight on. So you see blue wherever you look up.';

/** Serves the playground beside routes that answer as an OpenAI-compatible server would, from a script. */
export async function fakeServer({ key, chatTemplate = true, pace = 2 }: FakeOptions = {}): Promise<FakeServer> {
  const app = Fastify();
  const bodies: Record<string, unknown>[] = [];
  let aborted = 0;
  let generated = 0;
  let scrapes = 0;
  playground(app);
  app.addHook('onRequest', async (request, reply) => {
    const open = request.url === '/' || request.url === '/health' || request.url.startsWith('/playground/');
    if (key === undefined || open || request.headers.authorization === `Bearer ${key}`) return;
    return reply.code(401).send({ error: { message: 'wrong or missing API key', code: 'invalid_api_key' } });
  });
  app.get('/health', () => ({ status: 'ok' }));
  app.get('/v1/models', () => ({ object: 'list', data: [{ id: 'fable-q8_0', object: 'model' }] }));
  app.get('/metrics', (_, reply) => reply.type('text/plain').send(metricsText(++scrapes, generated)));
  for (const route of ['/v1/chat/completions', '/v1/completions']) {
    app.post(route, async (request, reply) => {
      const body = request.body as Record<string, unknown>;
      bodies.push(body);
      const isChat = route.includes('chat');
      if (isChat && !chatTemplate) {
        const error = { message: 'the model has no chat template; send a prompt', code: 'chat_template_missing' };
        return reply.code(400).send({ error });
      }
      reply.hijack();
      reply.raw.writeHead(200, { 'content-type': 'text/event-stream' });
      const send = (data: object) => reply.raw.write(`data: ${JSON.stringify(data)}\n\n`);
      const messages = body.messages as { content: string }[] | undefined;
      const asked = messages?.at(-1)?.content ?? (body.prompt as string);
      const tokens = tokensFor(asked);
      const endless = asked.includes('endless');
      let sent = 0;
      for (; (sent < tokens.length || endless) && !reply.raw.destroyed; sent++) {
        if (sent === 6 && asked.includes('breaks')) {
          send({ error: { message: 'the lamp went out' } });
          reply.raw.end();
          return;
        }
        send({ choices: [isChat ? chatChoice(tokens, sent) : completionChoice(tokens, sent)] });
        generated++;
        await sleep(pace);
      }
      if (reply.raw.destroyed) {
        aborted++;
        return;
      }
      send({ choices: [{ index: 0, delta: {}, text: '', finish_reason: 'stop' }] });
      const usage = { prompt_tokens: 21, completion_tokens: sent, prompt_tokens_details: { cached_tokens: 16 } };
      send({ choices: [], usage });
      reply.raw.end('data: [DONE]\n\n');
    });
  }
  app.server.listen(0, '127.0.0.1');
  await app.ready();
  if (!app.server.listening) await once(app.server, 'listening');
  const { port } = app.server.address() as AddressInfo;
  const close = async () => {
    app.server.closeAllConnections();
    await app.close();
  };
  return { url: `http://127.0.0.1:${port}`, bodies, aborted: () => aborted, close };
}

function tokensFor(asked: string): FakeToken[] {
  if (asked.includes('HTML'))
    return tokenise('<img src="/x" onerror="document.title=1"> <b>bold</b> <script>alert(1)</script>');
  if (asked.includes('emoji')) {
    // One character in two tokens, as byte-level vocabularies have it.
    const [first, second] = [
      [0xf0, 0x9f],
      [0xa6, 0x8a],
    ].map((bytes) => ({ ...token('\ufffd', 7), bytes }));
    return [...tokenise('A fox: '), first!, second!, ...tokenise(' it is.')];
  }
  return tokenise(asked.includes('sky') ? sky : story);
}

function tokenise(text: string): FakeToken[] {
  return [...text.matchAll(/ ?[\w'-]{1,7}|\s|[^\w\s]/g)].map(([piece], index) => token(piece, index));
}

/** A token with a probability that looks like one, the same in every run. */
function token(text: string, index: number): FakeToken {
  const share = 0.03 + 0.96 * Math.abs(Math.sin(index * index * 1.7 + text.length)) ** 0.8;
  const entry = (name: string, part: number) => ({
    token: name,
    logprob: Math.log(part),
    bytes: [...Buffer.from(name)],
  });
  const others = [' the', ' a', ' its', ' one', ','].filter((name) => name !== text).slice(0, 4);
  const top = [entry(text, share), ...others.map((name, at) => entry(name, ((1 - share) * 0.5) / 2 ** at))];
  return { ...entry(text, share), top_logprobs: top.sort((a, b) => b.logprob - a.logprob) };
}

/** Text comes with the token that completes it. */
function textAt(tokens: readonly FakeToken[], index: number): string {
  const { token: text, bytes } = tokens[index % tokens.length]!;
  if (text !== '\ufffd') return text;
  return bytes[0] === 0xf0 ? '' : Buffer.from([0xf0, 0x9f, ...bytes]).toString();
}

function chatChoice(tokens: readonly FakeToken[], index: number): object {
  const content = [tokens[index % tokens.length]];
  return { index: 0, delta: { content: textAt(tokens, index) }, logprobs: { content }, finish_reason: null };
}

function completionChoice(tokens: readonly FakeToken[], index: number): object {
  const { token: text, logprob, top_logprobs } = tokens[index % tokens.length]!;
  const top = Object.fromEntries(top_logprobs.map((entry) => [entry.token, entry.logprob]));
  const logprobs = { tokens: [text], token_logprobs: [logprob], top_logprobs: [top], text_offset: [0] };
  return { index: 0, text: textAt(tokens, index), logprobs, finish_reason: null };
}

/** A busy server's metrics, further on with every scrape. */
function metricsText(scrapes: number, generated: number): string {
  const busy = 1 + 0.35 * Math.sin(scrapes / 3);
  const at = (value: number) => Math.round(value);
  const histogram = (name: string, bounds: readonly number[], counts: readonly number[]) => [
    ...bounds.map((bound, index) => `${name}_bucket{model_name="fable",le="${bound}"} ${counts[index]! * scrapes}`),
    `${name}_bucket{model_name="fable",le="+Inf"} ${counts.at(-1)! * scrapes}`,
  ];
  return [
    '# TYPE vllm:num_requests_running gauge',
    `vllm:num_requests_running{model_name="fable"} ${at(9 * busy)}`,
    `vllm:num_requests_waiting{model_name="fable"} ${at(3 * busy)}`,
    `vllm:kv_cache_usage_perc{model_name="fable"} ${(0.46 * busy).toFixed(3)}`,
    `vllm:prefix_cache_queries_total{model_name="fable"} ${1000 * scrapes}`,
    `vllm:prefix_cache_hits_total{model_name="fable"} ${780 * scrapes}`,
    `vllm:generation_tokens_total{model_name="fable"} ${generated + at(412 * scrapes + 300 * Math.sin(scrapes / 2))}`,
    `vllm:prompt_tokens_total{model_name="fable"} ${1530 * scrapes}`,
    ...histogram('vllm:time_to_first_token_seconds', [0.01, 0.025, 0.05, 0.1, 0.25], [2, 30, 70, 96, 100]),
    ...histogram('vllm:inter_token_latency_seconds', [0.002, 0.005, 0.01, 0.025], [120, 700, 960, 1000]),
    '',
  ].join('\n');
}
