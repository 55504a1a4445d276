// Child process of dispose.test.ts: loads the embedded model and disposes of it, again and again, as told by the first
// argument. Prints the resident set, in bytes, after cycle 5 and after cycle 50.
import { Engine } from '../../dist/index.js';

const prompt = Array.from({ length: 1000 }, (_, i) => i % 1000);
const load = (signal) => Engine.load({ backend: 'native-cpu', threads: 2, contextSize: 1024, signal });
const cycles = {
  answered: async () => {
    const engine = await load();
    await engine.complete({ tokenIds: prompt.slice(0, 50), maxTokens: 5 });
    await engine.dispose();
  },
  // The keys and values of a context are written, and a step is in flight.
  answering: async () => {
    const engine = await load();
    const answers = [prompt, [1, 2]].map((tokenIds) => engine.complete({ tokenIds, ignoreEos: true }));
    const settled = Promise.allSettled(answers);
    while (engine.stats().steps < 3) await new Promise((resolve) => setTimeout(resolve, 1));
    await engine.dispose();
    for (const { reason } of await settled) if (reason?.code !== 'DISPOSED') throw reason ?? new Error('answered');
  },
  loading: async (i) => {
    const abort = new AbortController();
    const loading = load(abort.signal);
    await new Promise((resolve) => setTimeout(resolve, i % 20));
    abort.abort();
    await loading.then(
      (engine) => engine.dispose(), // it was faster
      (error) => {
        if (error.code !== 'ABORTED') throw error;
      },
    );
  },
};

const cycle = cycles[process.argv[2]];
const resident = () => {
  for (let i = 0; i < 3; i++) global.gc();
  return process.memoryUsage().rss;
};
// What V8 compiles and Node allocates on the first uses of all this code is not the engines'.
for (let i = 0; i < 15; i++) await cycle(i);
// The least of five, since pages come and go.
const least = async () => {
  const sizes = [];
  for (let i = 0; i < 5; i++) {
    await cycle(i);
    sizes.push(resident());
  }
  return Math.min(...sizes);
};
const after5 = await least();
for (let i = 5; i < 45; i++) await cycle(i);
console.log(JSON.stringify([after5, await least()]));
