// Writes bench/gpu/plans: `npm run build:ts && node bench/gpu/export-plans.mjs`, again after every change of what crosses
// to native code. The files are in the repository because a machine with a GPU may have no Node.js; a test compares them
// with what the engine makes.
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { gzipSync } from 'node:zlib';

const shapes = ['llama-2-7b', 'llama-3.1-8b', 'llama-3.2-1b'];
const quantisations = { bf16: 'none', int8: 'int8', int4: 'int4' };
// Room for 64 sequences of 512 tokens and a call of eight more.
const limits = ['--context-size', '1024', '--batch-size', '64'];

/**
 * Names of the plans, and the arguments of `engine` that write each to `file`.
 * @type {ReadonlyMap<string, (file: string) => string[]>}
 */
export const plans = new Map(
  shapes.flatMap((shape) =>
    Object.entries(quantisations).map(([name, quantize]) => [
      `${shape}-${name}`,
      (file) => {
        const model = ['--synthetic', shape, '--type', 'bf16', '--quantize', quantize];
        return ['inspect', ...model, ...limits, '--save-plan', file];
      },
    ]),
  ),
);

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const engine = fileURLToPath(new URL('../../dist/cli/main.js', import.meta.url));
  const target = fileURLToPath(new URL('plans/', import.meta.url));
  const folder = mkdtempSync(join(tmpdir(), 'engine-plans-'));
  mkdirSync(target, { recursive: true });
  for (const [name, argumentsFor] of plans) {
    const file = join(folder, name);
    execFileSync(process.execPath, [engine, ...argumentsFor(file)], { stdio: ['ignore', 'ignore', 'inherit'] });
    writeFileSync(join(target, `${name}.plan.gz`), gzipSync(readFileSync(file), { level: 9 }));
  }
  rmSync(folder, { recursive: true });
}
