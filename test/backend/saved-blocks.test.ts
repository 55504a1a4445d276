import { mkdirSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, expect, it } from 'vitest';
import type { Session } from '../../src/backend/backend.js';
import { kvBlockBytes } from '../../src/backend/kv-dtype.js';
import { readSavedBlocksHead } from '../../src/backend/saved-blocks.js';
import { describeOnBackends } from './both-backends.js';
import { writeWeights } from './case-builder.js';
import { failure } from './failure.js';
import { temporaryFolder } from './temporary-folder.js';
import { schedules, tinyLlama } from './tiny-llama.js';

const folder = temporaryFolder();
const model = tinyLlama('saved blocks', 'q8_0', 'q8', 'int8');
const weights = writeWeights(model, folder);
/** Tokens in parts; those before the last part, 20 positions, are in the blocks of `prefix`. */
const parts = schedules['in chunks, in scattered blocks']!;
const last = parts.at(-1)!;
const prefix = Int32Array.of(50, 3, 61, 7, 8);
const label = new TextEncoder().encode('a prompt, ✓');

describeOnBackends('whole blocks', (load, isNative) => {
  let session: Session;
  const files = join(folder, String(isNative));
  const path = join(files, 'prompt');
  beforeAll(async () => {
    mkdirSync(files);
    session = await load(model.plan, weights, model.limits);
  });
  afterAll(() => session.dispose());

  const logitsOf = async (batch: typeof last) => (await session.step(batch, { logits: true })).logits!;
  /** Logits of the last part, whose first 20 positions are in the cache already. */
  const continued = () => logitsOf(last);
  const prefill = async () => {
    for (const part of parts.slice(0, -1)) await session.step(part);
  };
  /** Replaces the prefix by blocks that nothing was written to. */
  const clear = () => session.copyBlocks(Int32Array.from([...prefix].flatMap((block) => [30, block])));

  it('are copied in all layers, one pair after another, in order with the steps around them', async () => {
    await prefill();
    const expected = await continued();
    await clear();
    expect(await continued()).not.toEqual(expected);
    // Not awaited: written, copied away over a block between, overwritten, copied back.
    const promises = [
      ...parts.slice(0, -1).map((part) => session.step(part)),
      session.copyBlocks(Int32Array.from([...prefix].flatMap((block, i) => [block, 20, 20, 41 + i, 20, 20]))),
      clear(),
      session.copyBlocks(Int32Array.from([...prefix].flatMap((block, i) => [41 + i, block]))),
    ];
    const logits = continued();
    await Promise.all(promises);
    expect(await logits).toEqual(expected);
    // The blocks copied to hold it as well.
    const elsewhere = Int32Array.from([...last.blockTables], (block) => {
      const i = prefix.indexOf(block);
      return i < 0 ? block : 41 + i;
    });
    expect(await logitsOf({ ...last, blockTables: elsewhere })).toEqual(expected);
  });

  it('are not copied where one id is wrong', async () => {
    await prefill();
    const expected = await continued();
    for (const pairs of [[50, 64, 30, 50], [30, 50, -1, 3], [30], Array(2 * 64 + 2).fill(30)]) {
      expect(await failure(session.copyBlocks(Int32Array.from(pairs)))).toMatchObject({ code: 'INTERNAL' });
    }
    expect(await continued()).toEqual(expected);
  });

  it('are the same after a file, in other blocks too and in another session', async () => {
    await prefill();
    const expected = await continued();
    await session.saveBlocks(path, prefix, label);
    await clear();
    await session.loadBlocks(path, prefix, label);
    expect(await continued()).toEqual(expected);

    const other = await load(model.plan, weights, { ...model.limits, numBlocks: 70, maxTokens: 32 });
    const places = Int32Array.of(69, 0, 5, 6, 33);
    await other.loadBlocks(path, places, label);
    const blockTables = Int32Array.from([...last.blockTables], (block) => places[prefix.indexOf(block)] ?? block);
    expect((await other.step({ ...last, blockTables }, { logits: true })).logits).toEqual(expected);
    await other.dispose();
  });

  it('are saved as they are between the steps before and after', async () => {
    await prefill();
    const expected = await continued();
    const saved = session.saveBlocks(path, prefix, label);
    const cleared = clear();
    await Promise.all([saved, cleared]);
    await session.loadBlocks(path, prefix, label);
    expect(await continued()).toEqual(expected);
  });

  it('make one file of the expected size, for its owner only, in place of an older one', async () => {
    writeFileSync(path, 'something else', { mode: 0o644 });
    await session.saveBlocks(path, prefix, label);
    expect(readdirSync(files)).toEqual(['prompt']);
    const perBlock = 2 * 2 * 2 * (isNative ? kvBlockBytes('int8', 16, 4) : 4 * 4 * 16); // layers, KV heads, k and v
    const headBytes = 48 + 2 * 8 + label.length + 4;
    expect(statSync(path).size).toBe(headBytes + 5 * perBlock + 4);
    if (process.platform !== 'win32') expect(statSync(path).mode & 0o777).toBe(0o600);
    expect(readSavedBlocksHead(path)).toEqual({ label, numBlocks: 5, blockBytes: perBlock });
  });

  it('can be none, with an empty label', async () => {
    const empty = join(files, 'empty');
    await session.saveBlocks(empty, new Int32Array(0), new Uint8Array(0));
    await session.loadBlocks(empty, new Int32Array(0), new Uint8Array(0));
    expect(readSavedBlocksHead(empty)).toMatchObject({ label: new Uint8Array(0), numBlocks: 0 });
  });

  it('are refused where they do not fit, and the session goes on', async () => {
    await prefill();
    const expected = await continued();
    await session.saveBlocks(path, prefix, label);
    const refused = async (promise: Promise<void>, problem: RegExp) => {
      const error = await failure(promise);
      expect(error).toMatchObject({ code: 'PROMPT_CACHE_INVALID', parameters: { path } });
      expect(error.message).toMatch(problem);
    };
    await refused(session.loadBlocks(path, prefix, Uint8Array.of(...label, 0)), /another label/);
    await refused(
      session.loadBlocks(
        path,
        prefix,
        label.map((byte) => byte + 1),
      ),
      /another label/,
    );
    await refused(session.loadBlocks(path, prefix.slice(1), label), /another number of blocks/);
    for (const kvDtype of ['f16', 'f32'] as const) {
      const other = await load(model.plan, weights, { ...model.limits, kvDtype });
      await refused(other.loadBlocks(path, prefix, label), /of another .*model, type or size/);
      await other.dispose();
    }
    await session.loadBlocks(path, prefix, label);
    expect(await continued()).toEqual(expected);
  });

  it('are refused as soon as one byte is missing, too many or different', async () => {
    await session.saveBlocks(path, prefix, label);
    const bytes = readFileSync(path);
    const damaged = join(files, 'damaged');
    const headBytes = 48 + 2 * 8 + label.length + 4;
    for (const at of [0, 9, 13, 17, 21, 33, 37, 41, 49, 65, headBytes - 1, headBytes, 500, bytes.length - 1]) {
      const changed = Buffer.from(bytes);
      changed[at]! ^= 16;
      writeFileSync(damaged, changed);
      expect(await failure(session.loadBlocks(damaged, prefix, label)), `byte ${at}`).toMatchObject({
        code: 'PROMPT_CACHE_INVALID',
      });
      if (at < headBytes) expect(() => readSavedBlocksHead(damaged), `byte ${at}`).toThrow(/cannot be used/);
      else expect(readSavedBlocksHead(damaged).numBlocks).toBe(5);
    }
    writeFileSync(damaged, Buffer.concat([bytes, Buffer.of(0)]));
    for (let length = bytes.length + 1; length >= 0; length -= 1 + Math.floor(length / 9)) {
      truncateSync(damaged, length);
      if (length === bytes.length) continue;
      const error = await failure(session.loadBlocks(damaged, prefix, label));
      expect(error, `${length} bytes`).toMatchObject({ code: 'PROMPT_CACHE_INVALID' });
      expect(() => readSavedBlocksHead(damaged)).toThrow(/cannot be used/);
    }
  });

  it('say where no file can be read or written', async () => {
    const nowhere = join(files, 'absent', 'prompt');
    const saving = await failure(session.saveBlocks(nowhere, prefix, label));
    expect(saving).toMatchObject({ code: 'FILE_UNWRITABLE', parameters: { path: nowhere } });
    expect(saving.message).toMatch(/no such file/i);
    // The name is taken by a folder: the new file is removed again.
    expect(await failure(session.saveBlocks(files, prefix, label))).toMatchObject({ code: 'FILE_UNWRITABLE' });
    expect(readdirSync(folder).filter((name) => name.includes('partial'))).toEqual([]);
    for (const unreadable of [nowhere, files]) {
      expect(await failure(session.loadBlocks(unreadable, prefix, label))).toMatchObject({ code: 'FILE_UNREADABLE' });
      expect(() => readSavedBlocksHead(unreadable)).toThrow(/cannot read/);
    }
  });

  it('and labels beyond their limits are refused', async () => {
    for (const blocks of [Int32Array.of(64), Int32Array.of(-1), new Int32Array(65)]) {
      expect(await failure(session.saveBlocks(path, blocks, label))).toMatchObject({ code: 'INTERNAL' });
      expect(await failure(session.loadBlocks(path, blocks, label))).toMatchObject({ code: 'INTERNAL' });
    }
    const long = new Uint8Array(16 * 2 ** 20 + 1);
    expect((await failure(session.saveBlocks(path, prefix, long))).message).toMatch(/label has 16777217 bytes/);
    await session.saveBlocks(path, prefix, long.subarray(1));
    await session.loadBlocks(path, prefix, long.subarray(1));
    expect(readSavedBlocksHead(path).label.length).toBe(16 * 2 ** 20);
  });

  it('are refused after dispose()', async () => {
    const other = await load(model.plan, weights, model.limits);
    await other.dispose();
    expect(await failure(other.copyBlocks(new Int32Array(0)))).toMatchObject({ code: 'DISPOSED' });
    expect(await failure(other.saveBlocks(path, prefix, label))).toMatchObject({ code: 'DISPOSED' });
    expect(await failure(other.loadBlocks(path, prefix, label))).toMatchObject({ code: 'DISPOSED' });
  });
});
