import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { encodePlan } from '../../src/backend/encode-plan.js';
import { loadNativeAddon, type NativeHandle } from '../../src/backend/native-loader.js';
import { readSavedBlocksHead } from '../../src/backend/saved-blocks.js';
import { EngineError } from '../../src/base/errors.js';
import { writeWeights } from '../backend/case-builder.js';
import { notBuilt } from '../backend/native-availability.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { tinyLlama } from '../backend/tiny-llama.js';
import { seededRandom } from '../tensor/random.js';

/** More for a longer hunt, for instance under a sanitiser. */
const rounds = Number(process.env.ENGINE_FUZZ_ROUNDS ?? 400);

const folder = temporaryFolder();
const model = tinyLlama('saved blocks fuzz', 'q4_0', 'q8', 'int8');
const label = new TextEncoder().encode('the prompt of this file');
const blocks = Int32Array.of(50, 3, 61, 7, 8);
const path = join(folder, 'prompt');

const random = seededRandom(Number(process.env.ENGINE_FUZZ_SEED ?? 1));
const below = (limit: number): number => Math.floor(random() * limit);

async function open(): Promise<NativeHandle> {
  const { addon } = loadNativeAddon();
  const encoded = encodePlan(model.plan, writeWeights(model, folder), model.limits);
  const handle = new addon.Session();
  const settings = { isa: 'avx2', threads: 2, oversubscribed: false, adaptive: false, chunkTime: 0 };
  expect(await handle.load({ ...encoded, ...settings })).toBeUndefined();
  return handle;
}

/** Bits flipped, words at the edges of what they count, ends cut off or added; mostly in the head. */
function mutate(bytes: Buffer): Buffer {
  const mutated = Buffer.from(bytes);
  for (let i = below(3); i >= 0; i--) {
    const at = below(below(2) === 0 ? 100 : bytes.length - 4);
    const edge = [0, 1, 0xff, 0xffff, 0xffffff, 0x7fffffff, 0x80000000, 0xffffffff][below(8)]!;
    if (below(2) === 0) mutated[at]! ^= 1 << below(8);
    else mutated.writeUInt32LE(edge, at & ~3);
  }
  if (below(4) === 0) return mutated.subarray(0, below(mutated.length));
  return below(8) === 0 ? Buffer.concat([mutated, mutated.subarray(below(mutated.length))]) : mutated;
}

describe.skipIf(notBuilt)(`hostile files of saved blocks, and hostile ids${notBuilt ?? ''}`, () => {
  it('are refused or loaded', async () => {
    const handle = await open();
    expect(await handle.saveBlocks(path, blocks, label)).toBeUndefined();
    const whole = readFileSync(path);
    const hostile = join(folder, 'hostile');
    for (let round = 0; round < rounds; round++) {
      const bytes = mutate(whole);
      writeFileSync(hostile, bytes);
      const failure = await handle.loadBlocks(hostile, blocks, label);
      expect(failure?.code).toBe(bytes.equals(whole) ? undefined : 'PROMPT_CACHE_INVALID');
      try {
        expect(readSavedBlocksHead(hostile).numBlocks).toBe(5); // the payload was hit
      } catch (error) {
        expect(error).toBeInstanceOf(EngineError);
        expect(error).toMatchObject({ code: 'PROMPT_CACHE_INVALID' });
      }
    }
    expect(await handle.loadBlocks(path, blocks, label)).toBeUndefined();
    await handle.dispose();
  });

  it('never lead outside of the cache', async () => {
    const handle = await open();
    const ids = [0, 1, 62, 63, 64, -1, 2 ** 31 - 1, -(2 ** 31)];
    const counts = new Map<string, number>();
    for (let round = 0; round < rounds; round++) {
      const given = Int32Array.from({ length: below(8) }, () => (below(3) === 0 ? ids[below(8)]! : below(64)));
      const calls = [handle.copyBlocks(given), handle.saveBlocks(path, given, label)];
      for (const failure of await Promise.all(calls)) {
        const code = failure?.code ?? 'success';
        counts.set(code, (counts.get(code) ?? 0) + 1);
      }
    }
    expect([...counts.keys()].sort()).toEqual(['INTERNAL', 'success']);
    const odd = new Float32Array(4) as unknown as Int32Array;
    expect(await handle.copyBlocks(odd)).toMatchObject({ code: 'INTERNAL' });
    expect(await handle.saveBlocks(path, blocks, odd as unknown as Uint8Array)).toMatchObject({ code: 'INTERNAL' });
    await handle.dispose();
  });

  it('are written whole or not at all when the session is disposed', async () => {
    const handle = await open();
    const many = Int32Array.from({ length: 64 }, (_, i) => i);
    const saves = Array.from({ length: 20 }, (_, i) => handle.saveBlocks(join(folder, `${i}`), many, label));
    await handle.dispose();
    const codes = (await Promise.all(saves)).map((failure) => failure?.code);
    expect(new Set([...codes, undefined, 'DISPOSED'])).toEqual(new Set([undefined, 'DISPOSED']));
    for (const [i, code] of codes.entries()) {
      const saved = join(folder, `${i}`);
      if (code === undefined) expect(readSavedBlocksHead(saved).numBlocks).toBe(64);
      else expect(() => readFileSync(saved)).toThrow(/ENOENT/);
    }
  });
});
