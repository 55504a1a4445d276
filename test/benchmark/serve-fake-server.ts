import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';

export interface CompletionBody {
  readonly model: string;
  readonly prompt: readonly number[];
  readonly max_tokens: number;
  readonly stream: boolean;
}

/** What it does with a request; `number` counts requests from 0. */
export interface FakeAnswer {
  /** Milliseconds before the first token, and between tokens. */
  readonly ttft?: number;
  readonly gap?: number;
  /** Tokens; default: as many as asked for. */
  readonly tokens?: number;
  /** In place of an answer. */
  readonly status?: number;
  /** After so many tokens the connection breaks. */
  readonly breakAfter?: number;
}

/** A completion server without a model. It notes when it wrote what, on the clock of the client in the same process. */
export class FakeServer {
  readonly bodies: CompletionBody[] = [];
  /** Milliseconds of performance.now(), a list for each request that was streamed. */
  readonly writes: number[][] = [];
  /** Of every request. */
  readonly authorization: (string | undefined)[] = [];
  metrics = '';
  inFlight = 0;
  mostInFlight = 0;
  #url = '';
  readonly #server: Server;

  private constructor(readonly answer: (body: CompletionBody, number: number) => FakeAnswer) {
    this.#server = createServer((request, response) => void this.#handle(request, response));
  }

  static async start(answer: (body: CompletionBody, number: number) => FakeAnswer = () => ({})): Promise<FakeServer> {
    const fake = new FakeServer(answer);
    await new Promise<void>((resolve) => fake.#server.listen(0, '127.0.0.1', resolve));
    fake.#url = `http://127.0.0.1:${(fake.#server.address() as AddressInfo).port}`;
    return fake;
  }

  get url(): string {
    return this.#url;
  }

  async stop(): Promise<void> {
    const closed = new Promise((resolve) => this.#server.close(resolve));
    this.#server.closeAllConnections();
    await closed;
  }

  async #handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.authorization.push(request.headers.authorization);
    let text = '';
    for await (const piece of request) text += String(piece);
    if (request.url === '/v1/models') {
      response.end(JSON.stringify({ data: [{ id: 'fake', meta: { n_vocab: 1000, n_ctx: 4096 } }] }));
    } else if (request.url === '/metrics') {
      response.statusCode = this.metrics === '' ? 404 : 200;
      response.end(this.metrics);
    } else {
      this.mostInFlight = Math.max(this.mostInFlight, ++this.inFlight);
      const body = JSON.parse(text) as CompletionBody;
      this.bodies.push(body);
      await this.#complete(body, this.answer(body, this.bodies.length - 1), response);
      this.inFlight--;
    }
  }

  async #complete(body: CompletionBody, answer: FakeAnswer, response: ServerResponse): Promise<void> {
    const { ttft = 0, gap = 0, tokens = body.max_tokens, status = 200, breakAfter } = answer;
    if (status !== 200) {
      response.statusCode = status;
      response.end(JSON.stringify({ error: { message: 'the queue is full', code: 'QUEUE_FULL' } }));
      return;
    }
    const usage = { prompt_tokens: body.prompt.length, completion_tokens: tokens };
    if (ttft > 0) await sleep(ttft);
    if (!body.stream) {
      response.end(JSON.stringify({ choices: [{ text: 'x'.repeat(tokens), finish_reason: 'length' }], usage }));
      return;
    }
    const writes: number[] = [];
    this.writes.push(writes);
    for (let i = 0; i < tokens; i++) {
      if (i > 0 && gap > 0) await sleep(gap);
      if (i === breakAfter) return void response.destroy();
      writes.push(performance.now());
      response.write(`data: ${JSON.stringify({ choices: [{ text: ' é', finish_reason: null }] })}\n\n`);
    }
    response.write(`data: ${JSON.stringify({ choices: [{ text: '', finish_reason: 'length' }], usage })}\n\n`);
    response.end('data: [DONE]\n\n');
  }
}
