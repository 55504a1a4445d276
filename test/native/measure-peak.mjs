// Child process of load.test.ts: loads a model, generates a token, and prints the most memory that was resident, bytes.
import { readFileSync } from 'node:fs';
import { Engine } from '../../dist/index.js';

const [, , model, quantize] = process.argv;
const engine = await Engine.load({ model, quantize, backend: 'native-cpu', threads: 2 });
await engine.complete({ prompt: 'Hi', maxTokens: 1, temperature: 0 });
console.log(1024 * Number(/VmHWM:\s*(\d+) kB/.exec(readFileSync('/proc/self/status', 'latin1'))[1]));
await engine.dispose();
