import { copyFileSync, readdirSync, readFileSync, statSync, truncateSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { preparePromptFolder } from '../../src/engine/prompt-folder.js';
import { openModel } from '../../src/formats/hub.js';
import { requireEmbeddedModel } from '../../src/library/embedded-model.js';
import { Engine } from '../../src/library/engine.js';
import { type LoadOptions, sessionLimits } from '../../src/library/load-options.js';
import { modelFingerprint } from '../../src/library/model-fingerprint.js';
import { loadModel } from '../../src/model/load.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { runJson } from '../cli/run-cli.js';

const root = temporaryFolder();
let numFolders = 0;
const newFolder = () => join(root, `prompts-${numFolders++}`);

/** 96 tokens, whole blocks. */
const shared = Array.from({ length: 96 }, (_, i) => 100 + ((i * 37) % 800));
const ends = [
  [11, 12, 13],
  [21, 22],
  [31, 32, 33, 34],
];
const requestOf = (i: number) => ({
  tokenIds: [...shared, ...ends[i]!],
  maxTokens: 6,
  ignoreEos: true,
  seed: 3,
  logprobs: 2,
});

async function ask(engine: Engine, i: number, more = {}) {
  const { tokenIds, logprobs, usage } = await engine.complete({ ...requestOf(i), ...more });
  return { cached: usage.cachedTokens, answer: { tokenIds, logprobs } };
}

/** Two requests that share a beginning, and the end of the process, as it were. */
async function save(options: LoadOptions): Promise<void> {
  await using engine = await Engine.load(options);
  await ask(engine, 0);
  await ask(engine, 1);
}

const files = (directory: string) => readdirSync(directory).map((name) => join(directory, name));

describe.each(['native-cpu', 'reference'] as const)('prompts on disk, %s', (backend) => {
  it('are there after a restart, and change no bit', async () => {
    const promptCache = newFolder();
    const options = { backend, contextSize: 256, promptCache };
    await using plain = await Engine.load({ backend, contextSize: 256 });
    const expected = await ask(plain, 2);
    await save(options);
    expect(files(promptCache)).toHaveLength(1);
    expect(statSync(files(promptCache)[0]!).mode & 0o777).toBe(0o600);
    await using engine = await Engine.load(options);
    const { cached, answer } = await ask(engine, 2);
    expect(answer).toEqual(expected.answer);
    expect([expected.cached, cached]).toEqual([0, 96]);
    const count = (all: Engine) => all.stats().computedTokens;
    expect(count(plain) - count(engine)).toBe(96);
  });

  it.each([
    [
      'a flipped byte',
      (path: string) => {
        const bytes = readFileSync(path);
        bytes[bytes.length >> 1]! ^= 4;
        writeFileSync(path, bytes);
      },
    ],
    ['a missing end', (path: string) => truncateSync(path, statSync(path).size - 1)],
  ])('are computed if their file has %s, with a warning', async (_, damage) => {
    const promptCache = newFolder();
    const options = { backend, contextSize: 256, promptCache };
    await save(options);
    damage(files(promptCache)[0]!);
    await using plain = await Engine.load({ backend, contextSize: 256 });
    const warnings: Error[] = [];
    const onWarning = (warning: Error) => warnings.push(warning);
    process.on('warning', onWarning);
    await using engine = await Engine.load(options);
    const { cached, answer } = await ask(engine, 2);
    expect(answer).toEqual((await ask(plain, 2)).answer);
    expect(cached).toBe(0);
    await expect.poll(() => warnings).toHaveLength(1);
    process.off('warning', onWarning);
    expect(warnings[0]).toMatchObject({ name: 'PromptCacheWarning', code: 'PROMPT_CACHE_INVALID' });
  });
});

it('serve no other KV type, quantisation, activations or backend, and any context size, thread count and file name', async () => {
  const promptCache = newFolder();
  const options = { backend: 'native-cpu', contextSize: 256, promptCache } as const;
  await save(options);
  const cachedWith = async (more: LoadOptions) => {
    const directory = newFolder();
    preparePromptFolder(directory);
    for (const path of files(promptCache)) copyFileSync(path, join(directory, basename(path)));
    await using engine = await Engine.load({ ...options, promptCache: directory, ...more });
    return (await ask(engine, 2)).cached;
  };
  const model = join(root, 'renamed.gguf');
  copyFileSync(requireEmbeddedModel(), model);
  for (const more of [{ contextSize: 200 }, { threads: 1 }, { model }, { maxSequences: 2 }]) {
    expect(await cachedWith(more)).toBe(96);
  }
  const others = [{ kvDtype: 'f32' }, { quantize: 'int8' }, { activations: 'f32' }, { backend: 'reference' }] as const;
  for (const more of others) expect(await cachedWith(more), JSON.stringify(more)).toBe(0);
});

it('have a fingerprint that changes with every weight, and with nothing but content', async () => {
  const fingerprintOf = async (path: string) => {
    const model = loadModel(await openModel(path), { activations: 'f32' });
    const print = modelFingerprint(model, sessionLimits({}, model.config), 'native-cpu:avx2');
    return { entries: model.weights.entries, print: Buffer.from(print).toString('hex') };
  };
  const original = requireEmbeddedModel();
  const { entries, print } = await fingerprintOf(original);
  expect(print).toHaveLength(64);
  const path = join(root, 'changed.gguf');
  const bytes = readFileSync(original);
  for (const { offset } of entries) {
    bytes[offset]! ^= 1;
    writeFileSync(path, bytes);
    bytes[offset]! ^= 1;
    expect((await fingerprintOf(path)).print).not.toBe(print);
  }
  writeFileSync(path, bytes);
  expect((await fingerprintOf(path)).print).toBe(print);
});

it('may be shared by processes, which write the same file at once', async () => {
  const promptCache = newFolder();
  const prompt = 'Once upon a time there was a king who had three sons, and the youngest of them was a fool. '.repeat(
    5,
  );
  const args = ['generate', prompt, '-n', '4', '--seed', '1', '--context-size', '512', '--prompt-cache', promptCache];
  interface Report {
    token_ids: number[];
    usage: { prompt_tokens: number; cached_tokens: number };
  }
  const first = await Promise.all([1, 2, 3].map(() => runJson<Report>(args)));
  for (const { token_ids } of first) expect(token_ids).toEqual(first[0]!.token_ids);
  expect(files(promptCache)).toHaveLength(1);
  const second = await runJson<Report>(args);
  expect(second.token_ids).toEqual(first[0]!.token_ids);
  const { prompt_tokens, cached_tokens } = second.usage;
  expect(cached_tokens).toBe(Math.floor((prompt_tokens - 1) / 16) * 16);
});

it('need a folder that can be written to, a limit that is a number, and the prefix cache', async () => {
  const file = join(root, 'a file');
  writeFileSync(file, '');
  await expect(Engine.load({ promptCache: file })).rejects.toMatchObject({ code: 'FILE_UNWRITABLE' });
  const invalid = [
    { promptCache: '' },
    { promptCache: newFolder(), promptCacheBytes: -1 },
    { promptCacheBytes: 0.5 },
    { promptCache: newFolder(), prefixCache: false },
  ];
  for (const options of invalid) {
    await expect(Engine.load(options)).rejects.toMatchObject({ code: 'OPTION_INVALID' });
  }
});
