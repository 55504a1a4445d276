import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { gunzipSync } from 'node:zlib';
import { expect, it } from 'vitest';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { runCli } from '../cli/run-cli.js';

const scripts = fileURLToPath(new URL('../../bench/gpu', import.meta.url));
const exporter: string = pathToFileURL(join(scripts, 'export-plans.mjs')).href;
const { plans } = (await import(exporter)) as { plans: ReadonlyMap<string, (file: string) => string[]> };
const folder = temporaryFolder();

it('there is a saved plan of every shape and type', () => {
  const names = [...plans.keys()].map((name) => `${name}.plan.gz`);
  expect(readdirSync(join(scripts, 'plans'))).toEqual(names.toSorted());
});

it.each(['llama-2-7b-bf16', 'llama-3.1-8b-int8', 'llama-3.2-1b-int4'])(
  'the saved plan %s is what bench/gpu/export-plans.mjs makes',
  async (name) => {
    const file = join(folder, name);
    const { code, stderr } = await runCli(plans.get(name)!(file));
    expect({ code, stderr }).toEqual({ code: 0, stderr: '' });
    const saved = gunzipSync(readFileSync(join(scripts, 'plans', `${name}.plan.gz`)));
    expect(saved.equals(readFileSync(file))).toBe(true);
  },
);
