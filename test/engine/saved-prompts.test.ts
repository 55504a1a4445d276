import {
  chmodSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import type { EngineLoop } from '../../src/engine/engine-loop.js';
import { preparePromptFolder } from '../../src/engine/prompt-folder.js';
import { resolveSampling } from '../../src/engine/sampler.js';
import type { SavedPromptsOptions } from '../../src/engine/saved-prompts.js';
import type { TokenRequest } from '../../src/engine/sequence.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { seededRandom } from '../tensor/random.js';
import { expectedTokens, fakeLoop, VOCAB } from './fake-session.js';

const root = temporaryFolder();
let numFolders = 0;
const newFolder = () => preparePromptFolder(join(root, `${numFolders++}`));

const SHARED = 80;
const shared = Array.from({ length: SHARED }, (_, i) => 1 + ((i * 31) % 900));
const ends = [
  [11, 12, 13, 14, 15],
  [21, 22],
  [31, 32, 33],
];
const whole = (i: number) => [...shared, ...ends[i]!];

function open(directory: string, more: Partial<SavedPromptsOptions> = {}, numBlocks = 64) {
  const warnings: EngineError[] = [];
  const fingerprint = new Uint8Array(32).fill(7);
  const warn = (error: EngineError) => void warnings.push(error);
  const savedPrompts = { directory, maxBytes: 1e6, fingerprint, blockBytes: 48, idleMs: 5, warn, ...more };
  const opened = fakeLoop({ numBlocks, contextSize: 256, maxTokens: 32 }, { savedPrompts });
  return { ...opened, warnings };
}

/** Asks, compares the answer with the one without any cache, and returns how many tokens were cached. */
async function ask(loop: EngineLoop, promptIds: readonly number[], more: Partial<TokenRequest> = {}): Promise<number> {
  const sampling = resolveSampling({}, VOCAB);
  const given = { promptIds: Int32Array.from(promptIds), maxTokens: 3, sampling, stopIds: new Set<number>(), ...more };
  const stream = loop.submit(given);
  const ids: number[] = [];
  for await (const { id } of stream) ids.push(id);
  expect(ids).toEqual(expectedTokens(promptIds, given.maxTokens));
  loop.checkIntegrity();
  return stream.cachedTokens;
}

/** A folder in which the shared beginning is saved. */
async function warmFolder(more: Partial<TokenRequest> = {}): Promise<string> {
  const directory = newFolder();
  const { loop } = open(directory);
  await ask(loop, whole(0), more);
  await ask(loop, whole(1), more);
  await loop.dispose();
  return directory;
}

const onlyFile = (directory: string) => {
  const names = readdirSync(directory);
  expect(names).toHaveLength(1);
  return join(directory, names[0]!);
};

it('saves what two requests share when there are no more, and a new loop computes only the rest', async () => {
  const directory = newFolder();
  const before = open(directory);
  expect(await ask(before.loop, whole(0))).toBe(0);
  expect(readdirSync(directory)).toEqual([]);
  expect(await ask(before.loop, whole(1))).toBe(SHARED);
  await expect.poll(() => before.session.saved).toHaveLength(1);
  await before.loop.dispose();
  expect(before.session.saved).toHaveLength(1); // once

  const after = open(directory);
  expect(await ask(after.loop, whole(2))).toBe(SHARED);
  expect(after.loop.stats().computedTokens).toBe(whole(2).length - SHARED + 2);
  expect(await ask(after.loop, whole(1))).toBe(SHARED);
  expect(after.session.loaded).toHaveLength(1); // the second time it was in memory
  await after.loop.dispose();
  expect(after.session.saved).toEqual([]);
});

it('saves nothing while requests come, and what they shared when the loop is disposed of', async () => {
  const directory = newFolder();
  const { loop, session } = open(directory, { idleMs: 10_000 });
  for (const i of [0, 1, 2]) await ask(loop, whole(i));
  expect(session.saved).toEqual([]);
  await Promise.all([loop.dispose(), loop.dispose()]);
  expect(session.saved).toHaveLength(1);
  expect(session.disposed).toBe(true);
  expect(() => loop.submit({ promptIds: Int32Array.of(1) } as TokenRequest)).toThrow();
});

it('saves no turn of a conversation, but what two conversations share', async () => {
  const directory = newFolder();
  const { loop, session } = open(directory);
  let turns = whole(0);
  for (let turn = 0; turn < 3; turn++) {
    turns = [...turns, ...expectedTokens(turns, 3), 50 + turn, 51, 52, 53];
    await ask(loop, turns);
  }
  await ask(loop, whole(1));
  await loop.dispose();
  expect(session.saved).toHaveLength(1);
  expect(statSync(onlyFile(directory)).size).toBeLessThan(48 * (SHARED / 4 + 12));
});

it('saves the last prompt of a program that asked one question, if it is long enough', async () => {
  const directory = newFolder();
  const short = open(directory);
  await ask(short.loop, shared.slice(0, 60));
  await short.loop.dispose();
  expect(readdirSync(directory)).toEqual([]);
  const long = open(directory);
  await ask(long.loop, whole(0));
  await long.loop.dispose();
  const again = open(directory);
  expect(await ask(again.loop, whole(0))).toBe(84);
  await again.loop.dispose();
});

it('replaces a saved beginning by one that extends it, from which it can be read', async () => {
  const directory = await warmFolder();
  const first = onlyFile(directory);
  const longer = [...whole(0), ...shared.slice(0, 39)];
  const { loop } = open(directory);
  await ask(loop, [...longer, 7]);
  await ask(loop, [...longer, 8]);
  await loop.dispose();
  expect(onlyFile(directory)).not.toBe(first);
  const restored = open(directory);
  expect(await ask(restored.loop, whole(2))).toBe(SHARED);
  await restored.loop.dispose();
});

it('keeps a beginning apart from what is so much longer that reading all of that takes longer than computing', async () => {
  const directory = await warmFolder();
  const longer = [...shared, ...Array.from({ length: 4 * SHARED }, (_, i) => 500 + i)];
  const { loop } = open(directory, {}, 256);
  await ask(loop, [...longer, 7]);
  await ask(loop, [...longer, 8]);
  await loop.dispose();
  expect(readdirSync(directory)).toHaveLength(2);
  const restored = open(directory, {}, 256);
  expect(await ask(restored.loop, whole(2))).toBe(SHARED);
  expect(restored.loop.stats().blocks.cached).toBeLessThan(30); // those of the shorter one
  expect(await ask(restored.loop, [...longer.slice(0, SHARED + 8), 7, 7])).toBe(SHARED);
  expect(await ask(restored.loop, [...longer, 9])).toBe(longer.length);
  expect(restored.session.loaded).toHaveLength(2);
  await restored.loop.dispose();
});

it('lets requests that come together wait for one reading, and others go on meanwhile', async () => {
  const directory = await warmFolder();
  const { loop, session } = open(directory);
  let finish: () => void = () => undefined;
  session.beforeLoaded = () =>
    new Promise<void>((resolve) => {
      finish = resolve;
    });
  const waiting = [ask(loop, whole(1)), ask(loop, whole(2))];
  await expect.poll(() => session.loaded).toHaveLength(1);
  expect(await ask(loop, [5, 6, 7])).toBe(0);
  expect(loop.stats()).toMatchObject({ running: 0, waiting: 2, generatedTokens: 3 });
  finish();
  expect(await Promise.all(waiting)).toEqual([SHARED, SHARED]);
  expect(session.loaded).toHaveLength(1);
  await loop.dispose();
});

it('ends a request that is cancelled, and one whose loop is disposed of, while its prompt is being read', async () => {
  const directory = await warmFolder();
  const { loop, session } = open(directory);
  const finish: (() => void)[] = [];
  session.beforeLoaded = () => new Promise<void>((resolve) => void finish.push(resolve));
  const abort = new AbortController();
  const sampling = resolveSampling({}, VOCAB);
  const request = { promptIds: Int32Array.from(whole(1)), maxTokens: 3, sampling, stopIds: new Set<number>() };
  const stream = loop.submit({ ...request, signal: abort.signal });
  await expect.poll(() => finish).toHaveLength(1);
  abort.abort();
  for await (const _ of stream) throw new Error('a token of a cancelled request');
  expect(stream.finishReason).toBe('abort');
  expect(loop.stats().waiting).toBe(0);
  finish[0]!();
  expect(await ask(loop, whole(2))).toBe(SHARED); // what was read is there all the same
  await loop.dispose();

  const other = open(directory);
  other.session.beforeLoaded = session.beforeLoaded;
  const failing = ask(other.loop, whole(1));
  await expect.poll(() => finish).toHaveLength(2);
  const disposal = other.loop.dispose();
  await expect(failing).rejects.toMatchObject({ code: 'DISPOSED' });
  finish[1]!();
  await disposal;
  other.loop.checkIntegrity();
});

it('reads nothing when too few blocks are available, and preempts nobody', async () => {
  const directory = await warmFolder();
  const { loop, session } = open(directory, {}, 26);
  const long = Array.from({ length: 40 }, (_, i) => 500 + i);
  const running = ask(loop, long, { maxTokens: 20 });
  await expect.poll(() => loop.stats().running).toBe(1);
  expect(await ask(loop, whole(1))).toBe(0);
  await running;
  expect(session.loaded).toEqual([]);
  expect(loop.stats().preemptions).toBe(0);
  expect(await ask(loop, shared.slice(0, 20))).toBeGreaterThan(0); // in memory by now
  await loop.dispose();
});

it.each([
  ['tenant', { tenant: 'a' }, { tenant: 'b' }],
  ['salt', { cacheSalt: 'a' }, { cacheSalt: 'b' }],
])('gives nothing to another %s', async (_, given, other) => {
  const directory = await warmFolder(given);
  const { loop, session } = open(directory);
  expect(await ask(loop, whole(1), other)).toBe(0);
  expect(await ask(loop, whole(1))).toBe(0);
  expect(session.loaded).toEqual([]);
  expect(await ask(loop, whole(1), given)).toBe(SHARED);
  await loop.dispose();
});

it('gives nothing to another model', async () => {
  const directory = await warmFolder();
  const { loop, session, warnings } = open(directory, { fingerprint: new Uint8Array(32).fill(8) });
  expect(await ask(loop, whole(1))).toBe(0);
  expect(session.loaded).toEqual([]);
  expect(warnings).toEqual([]);
  await loop.dispose();
});

it('puts nothing of a request into a path but a hash, and lets nobody else read', async () => {
  const directory = await warmFolder({ tenant: '../../../tenant', cacheSalt: '/etc/passwd\0' });
  expect(readdirSync(directory)[0]).toMatch(/^[0-9a-f]{64}\.kv$/);
  expect(statSync(directory).mode & 0o777).toBe(0o700);
});

function flipped(bytes: Buffer, at: number): Buffer {
  bytes[at]! ^= 1;
  return bytes;
}

const damages: [string, (bytes: Buffer) => Buffer][] = [
  ['a flipped byte among the blocks', (bytes) => flipped(bytes, bytes.length - 100)],
  ['a flipped byte in the label', (bytes) => flipped(bytes, 120)],
  ['a missing end', (bytes) => bytes.subarray(0, -5)],
  ['nothing in it', () => Buffer.alloc(0)],
];
it.each(damages)(
  'computes as usual what a file with %s should give, says so once, and saves it again',
  async (_, damage) => {
    const directory = await warmFolder();
    const path = onlyFile(directory);
    writeFileSync(path, damage(readFileSync(path)));
    const { loop, warnings } = open(directory);
    expect(await ask(loop, whole(2))).toBe(0);
    expect(await ask(loop, whole(1))).toBe(SHARED);
    await loop.dispose();
    expect(warnings.map(({ code }) => code)).toEqual(['PROMPT_CACHE_INVALID']);
    const again = open(directory);
    expect(await ask(again.loop, whole(2))).toBe(SHARED);
    expect(again.warnings).toEqual([]);
    await again.loop.dispose();
  },
);

it('does not believe a file under the name of another', async () => {
  const directory = await warmFolder();
  const other = await warmFolder({ tenant: 'b' });
  writeFileSync(onlyFile(directory), readFileSync(onlyFile(other)));
  const { loop, warnings } = open(directory);
  expect(await ask(loop, whole(1), { tenant: 'b' })).toBe(0);
  expect(warnings.map(({ code }) => code)).toEqual(['PROMPT_CACHE_INVALID']);
  await loop.dispose();
});

it('leaves alone what is not its own: other names, links, folders', async () => {
  const directory = await warmFolder();
  const path = onlyFile(directory);
  const target = join(newFolder(), 'target');
  writeFileSync(target, readFileSync(path));
  rmSync(path);
  symlinkSync(target, path);
  writeFileSync(join(directory, 'notes.txt'), 'mine');
  preparePromptFolder(join(directory, `${'0'.repeat(64)}.kv`));
  const { loop, warnings } = open(directory);
  expect(await ask(loop, whole(1))).toBe(0);
  expect(warnings).toEqual([]);
  await loop.dispose();
  expect(readFileSync(join(directory, 'notes.txt'), 'utf8')).toBe('mine');
});

it('removes what a process that ended while it wrote has left, but not what is being written', () => {
  const directory = newFolder();
  const [old, young] = ['old', 'young'].map((end) => join(directory, `${'a'.repeat(64)}.kv.partial-${end}`));
  for (const path of [old!, young!]) writeFileSync(path, '');
  utimesSync(old!, 1, 1);
  open(directory);
  expect(onlyFile(directory)).toBe(young);
});

it('computes as usual when a file has been removed by another process, without a word', async () => {
  const directory = await warmFolder();
  const { loop, warnings } = open(directory);
  rmSync(onlyFile(directory));
  expect(await ask(loop, whole(1))).toBe(0);
  expect(warnings).toEqual([]);
  await loop.dispose();
});

it('gives up saving after one failure, with one warning, and goes on answering', async () => {
  const directory = newFolder();
  const { loop, session, warnings } = open(directory);
  session.saveBlocks = async (path) => {
    session.saved.push(path);
    throw new EngineError('FILE_UNWRITABLE', { path, reason: 'no space left on device' });
  };
  await ask(loop, whole(0));
  await ask(loop, whole(1));
  await expect.poll(() => session.saved).toHaveLength(1);
  const other = shared.map((id) => id + 1);
  await ask(loop, [...other, 1]);
  expect(await ask(loop, [...other, 2])).toBe(SHARED);
  await loop.dispose();
  expect(session.saved).toHaveLength(1);
  expect(warnings.map(({ code }) => code)).toEqual(['FILE_UNWRITABLE']);
});

it('keeps its files within their limit, the most recently used ones, and writes none that is larger', async () => {
  const directory = newFolder();
  const prompts = [0, 1, 2].map((first) => shared.map((id) => id + first));
  const size = 84 * 12 + 500; // one file and a half
  const save = async (prompt: readonly number[], maxBytes: number) => {
    const { loop } = open(directory, { maxBytes });
    await ask(loop, [...prompt, 1]);
    await loop.dispose();
  };
  await save(prompts[0]!, size * 2);
  const [oldest] = readdirSync(directory);
  utimesSync(join(directory, oldest!), 1, 1);
  await save(prompts[1]!, size * 2);
  const middle = readdirSync(directory).find((name) => name !== oldest)!;
  utimesSync(join(directory, middle), 2, 2);
  const { loop } = open(directory, { maxBytes: size * 2 });
  expect(await ask(loop, [...prompts[0]!, 1, 2])).toBe(SHARED); // is now the last one used
  await loop.dispose();
  await save(prompts[2]!, size * 2);
  const left = readdirSync(directory);
  expect(left).toHaveLength(2);
  expect(left).toContain(oldest);
  expect(left).not.toContain(middle);

  await save(prompts[1]!, 100);
  expect(readdirSync(directory)).toEqual(left);
});

it('makes a folder for its owner only, and says why one cannot be used', () => {
  expect(statSync(preparePromptFolder(join(root, 'new', 'deep'))).mode & 0o777).toBe(0o700);
  const file = join(root, 'file');
  writeFileSync(file, '');
  chmodSync(file, 0o600);
  for (const path of [file, join(file, 'below'), join(root, 'nul\0')]) {
    expect(() => preparePromptFolder(path)).toThrow(expect.objectContaining({ code: 'FILE_UNWRITABLE' }));
  }
});

it('leaves every answer right and every block accounted for, whatever comes at whatever time', async () => {
  const directory = newFolder();
  const random = seededRandom(5);
  const below = (n: number) => Math.floor(random() * n);
  let restored = 0;
  for (let restart = 0; restart < 12; restart++) {
    const { loop, session } = open(directory, { idleMs: 0, maxBytes: 12_000 }, 44);
    const pause = () => new Promise<void>((resolve) => setTimeout(resolve, below(4)));
    session.beforeLoaded = pause;
    session.beforeSaved = pause;
    const requests = Array.from({ length: 25 }, async () => {
      await new Promise((resolve) => setTimeout(resolve, below(40)));
      const kind = below(3);
      const prompt = [...shared.slice(0, 64 + below(3) * 8).map((id) => id + kind), ...ends[below(3)]!, below(2)];
      const abort = new AbortController();
      const sampling = resolveSampling({}, VOCAB);
      const rest = { maxTokens: 1 + below(30), sampling, stopIds: new Set<number>(), signal: abort.signal };
      const stream = loop.submit({ promptIds: Int32Array.from(prompt), ...rest });
      if (below(4) === 0) setTimeout(() => abort.abort(), below(5));
      const ids: number[] = [];
      for await (const { id } of stream) ids.push(id);
      expect(ids).toEqual(expectedTokens(prompt, rest.maxTokens).slice(0, ids.length));
      expect(ids).toHaveLength(stream.finishReason === 'abort' ? ids.length : rest.maxTokens);
      loop.checkIntegrity();
    });
    await Promise.all(requests);
    restored += session.loaded.length;
    await loop.dispose();
    loop.checkIntegrity();
    const sizes = readdirSync(directory).map((name) => statSync(join(directory, name)).size);
    expect(sizes.reduce((sum, size) => sum + size, 0)).toBeLessThanOrEqual(12_000);
  }
  expect(restored).toBeGreaterThan(12);
});

it('saves each prompt once, and nothing after the session is gone, when a step outlasts the order to end', async () => {
  const { loop, session, warnings } = open(newFolder(), { idleMs: 0 });
  const other = shared.map((id) => id + 1);
  for (const prompt of [shared, other]) for (const end of ends) await ask(loop, [...prompt, ...end]);
  session.beforeSaved = async () => {
    expect(session.disposed).toBe(false);
    await new Promise((resolve) => setTimeout(resolve, 20));
  };
  void loop.submit({
    promptIds: Int32Array.from(ends[0]!),
    maxTokens: 9,
    sampling: resolveSampling({}, VOCAB),
    stopIds: new Set(),
  });
  await loop.dispose();
  await new Promise((resolve) => setTimeout(resolve, 60));
  expect(session.saved).toHaveLength(2);
  expect(new Set(session.saved).size).toBe(2);
  expect(warnings).toEqual([]);
});
