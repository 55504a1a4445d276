// One measurement with node-llama-cpp, in a process of its own: `node node-llama-cpp.mjs JSON` prints one line of JSON.
//
//   { model, threads, kind: 'greedy', prompts, generatedTokens }                     → { tokenIds }
//   { model, threads, kind: 'prefill' | 'decode', prompts, generatedTokens, runs }  → { rates }
//
// `prompts` are token ids, one list a sequence. Rates are tokens per second over all sequences together, measured as
// src/benchmark/throughput.ts does; the first run warms up and is not reported.
import { performance } from 'node:perf_hooks';
import { getLlama } from 'node-llama-cpp';

const { model: modelPath, threads, kind, prompts, generatedTokens, runs } = JSON.parse(process.argv[2]);
const greedy = { temperature: 0, yieldEogToken: true };

const llama = await getLlama({ gpu: false, build: 'never', maxThreads: 0, logLevel: 'error' });
const model = await llama.loadModel({ modelPath, gpuLayers: 0 });
const longest = Math.max(...prompts.map((prompt) => prompt.length));
const context = await model.createContext({
  sequences: prompts.length,
  contextSize: longest + generatedTokens + 8,
  batchSize: Math.max(512, prompts.length),
  threads,
});
const sequences = prompts.map(() => context.getSequence());

const measure = { greedy: greedyTokens, prefill: () => repeat(prefill), decode: () => repeat(decode) }[kind];
process.stdout.write(`\n${JSON.stringify(await measure())}\n`);
process.exit(0);

async function greedyTokens() {
  const tokenIds = [];
  for await (const token of sequences[0].evaluate(prompts[0], greedy)) {
    if (tokenIds.push(token) >= generatedTokens) break;
  }
  return { tokenIds };
}

async function repeat(action) {
  const rates = [];
  for (let run = 0; run <= runs; run++) {
    for (const sequence of sequences) await sequence.clearHistory();
    rates.push(await action());
  }
  return { rates: rates.slice(1) };
}

/** To the first token, as ours: reading a prompt ends with it. */
async function prefill() {
  const start = performance.now();
  await Promise.all(
    sequences.map(async (sequence, i) => {
      for await (const _ of sequence.evaluate(prompts[i], greedy)) break;
    }),
  );
  const tokens = prompts.reduce((sum, prompt) => sum + prompt.length, 0);
  return (tokens * 1000) / (performance.now() - start);
}

/** From the moment when all sequences have their first token. */
async function decode() {
  let waiting = sequences.length;
  let start = 0;
  let before = 0;
  let tokens = 0;
  await Promise.all(
    sequences.map(async (sequence, i) => {
      let count = 0;
      for await (const _ of sequence.evaluate(prompts[i], greedy)) {
        tokens++;
        if (++count === 1 && --waiting === 0) {
          start = performance.now();
          before = tokens;
        }
        if (count > generatedTokens) break;
      }
    }),
  );
  return ((tokens - before) * 1000) / (performance.now() - start);
}
