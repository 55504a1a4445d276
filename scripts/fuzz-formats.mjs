/**
 * Reads mutated model files until something breaks.
 *
 *     node scripts/fuzz-formats.mjs --count 1000000 --seed 1
 *
 * Compiles test/formats/fuzz.ts and the readers it exercises into build/fuzz, runs it, and prints one JSON document.
 * Exit code 1 if a reader crashed, hung or took too much memory; each failure says which file of which seed it was.
 */
import { execFileSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';

const { values } = parseArgs({
  options: { count: { type: 'string', default: '1000000' }, seed: { type: 'string', default: '1' } },
});
const [count, seed] = [Number(values.count), Number(values.seed)];
if (!Number.isSafeInteger(count) || count < 1 || !Number.isSafeInteger(seed)) {
  console.error('usage: node scripts/fuzz-formats.mjs [--count N] [--seed N]');
  process.exit(2);
}

const root = fileURLToPath(new URL('..', import.meta.url));
const compiler = fileURLToPath(new URL('../node_modules/typescript/bin/tsc', import.meta.url));
execFileSync(process.execPath, [compiler, '-p', 'test/formats/tsconfig.fuzz.json'], { cwd: root, stdio: 'inherit' });

const { fuzzFormats } = await import('../build/fuzz/test/formats/fuzz.js');
const start = performance.now();
const report = fuzzFormats({ count, seed });
console.log(
  JSON.stringify({ count, seed, seconds: Math.round((performance.now() - start) / 1000), ...report }, null, 2),
);
process.exit(report.failures.length > 0 ? 1 : 0);
