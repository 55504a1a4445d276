// The engine in a worker thread; the main thread asks it over message ports, with streaming and abort.
import { fileURLToPath } from 'node:url';
import { isMainThread, MessageChannel, parentPort, Worker, workerData } from 'node:worker_threads';
import { Engine, EngineError } from 'engine-ts';

const path = fileURLToPath(import.meta.url);

// ---- the worker's side: one engine; each request brings a port of its own

async function serve() {
  let engine = null;
  const answers = {
    load: async (options) => {
      engine = await Engine.load(options);
      return { model: engine.model, backend: engine.backend, contextSize: engine.contextSize };
    },
    stats: async () => engine.stats(),
    dispose: async () => engine?.dispose(),
  };
  parentPort.on('message', async ({ ask, value, port }) => {
    if (ask === 'generate') return stream(engine, value, port);
    port.postMessage(await answers[ask](value).then((result) => ({ result }), failure));
    port.close();
  });
}

/** Sends an event for every `next`: what has not been asked for does not pile up on the way. */
function stream(engine, request, port) {
  const left = new AbortController();
  const events = engine.generate({ ...request, signal: left.signal });
  port.on('message', async (ask) => {
    if (ask === 'next') port.postMessage(await events.next().then((result) => ({ result }), failure));
    else if (ask === 'abort') left.abort();
  });
  port.on('close', () => {
    left.abort(); // whoever asked has all, or has left
    events.return().catch(() => undefined); // nobody is there to be told
  });
}

/** An error's class and code do not survive a message, so they are sent as data. */
function failure(error) {
  const { code = 'INTERNAL', message, parameters } = error;
  return { error: { code, message, parameters: error instanceof EngineError ? parameters : null } };
}

// ---- the main thread's side

export class EngineThread {
  #worker = new Worker(path, { workerData: path });
  /** Those who wait for a reply, to be told if the thread ends. */
  #waiting = new Map();
  /** Why there is no thread any more. */
  #end = null;

  constructor() {
    this.#worker.on('error', (error) => {
      this.#end = error;
    });
    this.#worker.on('exit', () => {
      this.#end ??= new Error('the engine thread has ended');
      for (const reject of this.#waiting.values()) reject(this.#end);
    });
  }

  /** Same options as Engine.load, without the signal. */
  static async load(options = {}) {
    const thread = new EngineThread();
    const loaded = await thread.#ask('load', options).catch(async (error) => {
      await thread.#worker.terminate();
      throw error;
    });
    return Object.assign(thread, loaded);
  }

  /** Events as of Engine.generate. Leaving the loop, or the signal, ends the request in the worker. */
  async *generate({ signal, ...request }) {
    const { port1: port, port2 } = new MessageChannel();
    const onAbort = () => port.postMessage('abort');
    try {
      this.#worker.postMessage({ ask: 'generate', value: request, port: port2 }, [port2]);
      signal?.addEventListener('abort', onAbort, { once: true });
      if (signal?.aborted) onAbort();
      while (true) {
        port.postMessage('next');
        const { value, done } = await this.#reply(port);
        if (done) return;
        yield value;
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      port.close();
    }
  }

  stats() {
    return this.#ask('stats');
  }

  async dispose() {
    await this.#ask('dispose');
    await this.#worker.terminate();
  }

  #ask(ask, value) {
    const { port1: port, port2 } = new MessageChannel();
    this.#worker.postMessage({ ask, value, port: port2 }, [port2]);
    return this.#reply(port);
  }

  async #reply(port) {
    if (this.#end) throw this.#end;
    const message = new Promise((resolve, reject) => {
      this.#waiting.set(port, reject);
      port.once('message', resolve);
    });
    const { result, error } = await message.finally(() => this.#waiting.delete(port));
    if (error === undefined) return result;
    throw error.parameters
      ? new EngineError(error.code, error.parameters)
      : Object.assign(new Error(error.message), { code: error.code });
  }
}

// ---- what it looks like from outside: node worker-thread.mjs "PROMPT" …

async function demonstrate() {
  const prompts = process.argv.length > 2 ? process.argv.slice(2) : ['Once upon a time', 'The old king'];
  const thread = await EngineThread.load({ model: process.env.MODEL, batchSize: 4 });

  // Requests that come at once share the engine's batches, as in one thread.
  const texts = prompts.map(async (prompt, seed) => {
    let text = prompt;
    for await (const event of thread.generate({ prompt, maxTokens: 40, seed })) text += event.text;
    return text;
  });
  for (const text of await Promise.all(texts)) console.log(`${JSON.stringify(text)}`);

  const enough = new AbortController();
  let tokens = 0;
  for await (const { tokenIds, outcome } of thread.generate({ prompt: prompts[0], signal: enough.signal })) {
    tokens += tokenIds.length;
    if (tokens >= 5) enough.abort();
    if (outcome) console.log(`ended after ${tokens} tokens: ${outcome.finishReason}`);
  }
  const { running, waiting } = await thread.stats();
  console.log(`running ${running}, waiting ${waiting}`);
  await thread.dispose();
}

if (!isMainThread && workerData === path) await serve();
else if (isMainThread && process.argv[1] === path) await demonstrate();
