// Child process of inspect.test.ts: loads a model, fills its context, and prints by how many bytes the resident set grew.
import { Engine } from '../../dist/index.js';

const [, , model, contextSize] = process.argv;
const resident = () => {
  global.gc();
  return process.memoryUsage().rss;
};

// Whatever Node itself allocates on the first use of all this code is not the model's.
const warm = await Engine.load({ backend: 'native-cpu', threads: 2, contextSize: 64 });
await warm.complete({ prompt: 'warm', maxTokens: 8, temperature: 0 });
await warm.dispose();

const before = resident();
const engine = await Engine.load({ model, backend: 'native-cpu', threads: 2, contextSize: Number(contextSize) });
const tokenIds = new Int32Array(engine.contextSize - 2).fill(1);
await engine.complete({ tokenIds, maxTokens: 2, temperature: 0 });
console.log(resident() - before);
await engine.dispose();
