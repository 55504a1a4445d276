// Throughput of whole requests: prefill of a 512-token prompt, and decode after a short one.
//
//   node bench/generate.mjs [MODEL] [--threads N] [--json FILE]
//
// Correctness first: the model must give the same greedy tokens with one thread as with all, or nothing is timed. benny
// drives the repetition; each run is one request, and tokens per second are its own timings.
import { writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { parseArgs } from 'node:util';
import benny from 'benny';
import { Engine } from 'engine-ts';

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { threads: { type: 'string' }, json: { type: 'string' } },
});
const model = positionals[0];
const threads = values.threads === undefined ? undefined : Number(values.threads);
const runs = 5;
const prefill = { tokens: 512, answer: 1 };
const decode = { tokens: 4, answer: 64 };

const engine = await Engine.load({ model, threads });
const promptOf = (length) => Int32Array.from({ length }, (_, i) => 1 + ((i * 7919) % (engine.model.vocabSize - 1)));
const request = ({ tokens, answer }) => ({
  tokenIds: promptOf(Math.min(tokens, engine.contextSize - answer)),
  maxTokens: answer,
  temperature: 0,
  ignoreEos: true,
});

await checkTokens();
const rows = [];
await benny.suite(
  `${engine.model.name} on ${engine.backend}`,
  ...[
    ['prefill', prefill, 'prefillTokensPerSecond'],
    ['decode', decode, 'decodeTokensPerSecond'],
  ].map(([name, shape, rate]) => {
    const rates = [];
    const run = async () => {
      rates.push((await engine.complete(request(shape))).timings[rate]);
      if (rates.length === runs + 1) rows.push(row(name, shape, rates.slice(1))); // the first run warms up
    };
    return benny.add(name, run, { minSamples: runs + 1, maxTime: 0 });
  }),
);
await engine.dispose();

for (const { name, tokens_per_second: rate } of rows) {
  console.log(
    `${name.padEnd(8)} ${rate.median.toFixed(1)} tokens/s (${rate.min.toFixed(1)} … ${rate.max.toFixed(1)}, ${rate.runs} runs)`,
  );
}
if (values.json) writeFileSync(values.json, `${JSON.stringify(report(), null, 2)}\n`);

async function checkTokens() {
  const single = await Engine.load({ model, threads: 1 });
  const [all, one] = await Promise.all([engine, single].map((loaded) => loaded.complete(request(decode))));
  await single.dispose();
  if (String(all.tokenIds) !== String(one.tokenIds))
    throw new Error('tokens differ between thread counts: nothing timed');
}

function row(name, { tokens, answer }, rates) {
  const sorted = [...rates].sort((a, b) => a - b);
  const median = sorted[Math.floor(sorted.length / 2)];
  return {
    name,
    backend: engine.backend,
    batch: 1,
    prompt_tokens: Math.min(tokens, engine.contextSize - answer),
    generated_tokens: answer,
    tokens_per_second: { median, min: sorted[0], max: sorted.at(-1), runs: sorted.length },
  };
}

function report() {
  return {
    machine: { cpu: cpus()[0]?.model.trim(), processors: cpus().length, node: process.version },
    command: `node bench/generate.mjs ${process.argv.slice(2).join(' ')}`,
    model: { name: engine.model.name, architecture: engine.model.architecture },
    rows,
  };
}
