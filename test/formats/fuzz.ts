import { EngineError } from '../../src/base/errors.js';
import { type ByteSource, memorySource } from '../../src/formats/byte-source.js';
import { Fields } from '../../src/formats/fields.js';
import { ggufLimits, readGguf } from '../../src/formats/gguf.js';
import { parseJsonObject } from '../../src/formats/json.js';
import type { TensorInfo } from '../../src/formats/model-file.js';
import { readSafetensors } from '../../src/formats/safetensors.js';
import { PACKED_KEY } from '../../src/formats/safetensors-packed.js';
import { isPacked, matrixBytes } from '../../src/tensor/dtype.js';
import { tokenizerFromGguf } from '../../src/tokenizer/from-gguf.js';
import { tokenizerFromJson } from '../../src/tokenizer/from-json.js';
import { mutated, tokenizerJsons, tokenizerMetadata, use } from '../tokenizer/mutation.js';
import { list, typed, writeGguf } from './gguf-writer.js';
import { mutate, Random } from './mutation.js';
import { rawSafetensors, writeSafetensors } from './safetensors-writer.js';

export interface FuzzOptions {
  /** Mutated files to read. */
  readonly count: number;
  /** The same seed gives the same files. */
  readonly seed: number;
}

export interface FuzzReport {
  /** Files read without an error, by format. */
  readonly accepted: Readonly<Record<string, number>>;
  /** Files refused, by format and error code. */
  readonly refused: Readonly<Record<string, number>>;
  readonly slowestMs: number;
  /** Growth of the peak resident set, bytes. */
  readonly peakGrowth: number;
  /** What must not happen, each with what repeats it; empty if all is well. */
  readonly failures: readonly string[];
}

const MAX_MS = 1000;
const MAX_BYTES = 2 ** 30;
const MAX_FAILURES = 10;

interface Target {
  readonly name: string;
  readonly seeds: readonly Uint8Array[];
  /** Reads a file, and throws an Error that is no EngineError if what it accepted is inconsistent. */
  read(bytes: Uint8Array<ArrayBuffer>, random: Random): void;
}

/** Reads mutations of small valid files. Only an EngineError, soon, and with little memory, is a good answer. */
export function fuzzFormats({ count, seed }: FuzzOptions): FuzzReport {
  const accepted: Record<string, number> = {};
  const refused: Record<string, number> = {};
  const failures: string[] = [];
  let slowestMs = 0;
  const peakBefore = peakBytes();
  for (let i = 0; i < count && failures.length < MAX_FAILURES; i++) {
    // Each file has a generator of its own, so that one can be repeated without all before it.
    const { target, bytes, random } = fuzzedFile(seed, i);
    const start = performance.now();
    try {
      target.read(bytes, random);
      accepted[target.name] = (accepted[target.name] ?? 0) + 1;
    } catch (error) {
      if (error instanceof EngineError) {
        const outcome = `${target.name} ${error.code}`;
        refused[outcome] = (refused[outcome] ?? 0) + 1;
      } else failures.push(`seed ${seed}, file ${i} (${target.name}): ${String(error)}`);
    }
    let ms = performance.now() - start;
    // A busy machine is no fault of the reader; being slow twice is.
    if (ms > MAX_MS) ms = Math.min(ms, timeAgain(seed, i));
    if (ms > MAX_MS) failures.push(`seed ${seed}, file ${i} (${target.name}): took ${Math.round(ms)} ms`);
    slowestMs = Math.max(slowestMs, ms);
  }
  const peakGrowth = peakBytes() - peakBefore;
  if (peakGrowth > MAX_BYTES) failures.push(`seed ${seed}: the resident set grew by ${peakGrowth} bytes`);
  return { accepted, refused, slowestMs, peakGrowth, failures };
}

function fuzzedFile(seed: number, index: number): { target: Target; bytes: Uint8Array<ArrayBuffer>; random: Random } {
  const random = new Random(seed, index);
  const target = random.pick(targets);
  return { target, bytes: mutate(random.pick(target.seeds), random, target.seeds), random };
}

function timeAgain(seed: number, index: number): number {
  const { target, bytes, random } = fuzzedFile(seed, index);
  const start = performance.now();
  try {
    target.read(bytes, random);
  } catch {
    // Only the time is of interest here.
  }
  return performance.now() - start;
}

function peakBytes(): number {
  return process.resourceUsage().maxRSS * 1024;
}

const metadata = {
  'general.architecture': 'llama',
  'general.alignment': 32,
  'llama.block_count': 2,
  'llama.rope.freq_base': typed('float32', 10_000),
  'split.count': typed('uint16', 1),
  size: typed('uint64', 123n),
  signed: typed('int64', -5n),
  double: typed('float64', 0.1),
  flag: true,
  'tokenizer.ggml.tokens': ['<s>', 'a', 'ß', ''],
  'tokenizer.ggml.scores': list('float32', [0, -1, -2, -3]),
  'tokenizer.ggml.token_type': list('int32', [3, 1, 1, 1]),
  nested: list('array', [list('uint8', [1, 2]), list('string', ['x'])]),
  longs: list('uint64', [1n, 2n]),
  flags: [true, false],
};

const tensors = [
  { name: 'token_embd.weight', dtype: 'f32', shape: [4, 2] },
  { name: 'blk.0.attn_q.weight', dtype: 'q4_0', shape: [2, 32] },
  { name: 'blk.0.ffn_up.weight', dtype: 'q4_k', shape: [1, 256] },
  { name: 'rope_freqs.weight', dtype: 'f16', shape: [1, 2, 2, 3] },
] as const;

const packedTensors = [
  { name: 'blk.0.attn_k.weight', dtype: 'int4', shape: [17, 64] },
  { name: 'blk.0.attn_v.weight', dtype: 'int8', shape: [16, 32] },
  { name: 'blk.0.ffn_down.weight', dtype: 'int4_g128', shape: [1, 128] },
] as const;

/** One matrix in an own type, aligned by spaces after the JSON, and a vector. */
function packedSafetensors(): Uint8Array {
  const size = matrixBytes('int4', 16, 32)!;
  const metadata = { [PACKED_KEY]: JSON.stringify({ w: { dtype: 'int4', shape: [16, 32] } }) };
  const header = JSON.stringify({
    __metadata__: metadata,
    w: { dtype: 'U8', shape: [size], data_offsets: [0, size] },
    v: { dtype: 'F16', shape: [2], data_offsets: [size, size + 4] },
  });
  return rawSafetensors(header.padEnd(Math.ceil((8 + header.length) / 64) * 64 - 8), size + 4);
}

const targets: readonly Target[] = [
  {
    name: 'gguf',
    seeds: [
      writeGguf({ metadata, tensors }),
      writeGguf({ version: 2, tensors: tensors.slice(0, 2) }),
      writeGguf({ metadata: { a: 1, b: 'text' } }),
      writeGguf({ alignment: 64, tensors: packedTensors }),
    ],
    read(bytes, random) {
      // Some files are followed by a terabyte of zeros, where no length is too long for the file.
      const source = bounded(random.below(4) === 0 ? withEmptyTail(bytes, 2 ** 40) : memorySource('fuzz.gguf', bytes));
      checkPlaces(source, [...readGguf(source).tensors.values()]);
    },
  },
  {
    name: 'safetensors',
    seeds: [
      writeSafetensors([
        { name: 'model.embed_tokens.weight', dtype: 'F32', shape: [2, 3], bytes: new Uint8Array(24) },
        { name: 'model.norm.weight', dtype: 'BF16', shape: [3], bytes: new Uint8Array(6) },
        { name: 'scalar', dtype: 'F16', shape: [], bytes: new Uint8Array(2) },
        { name: 'position_ids', dtype: 'I64', shape: [1, 2], bytes: new Uint8Array(16) },
      ]),
      writeSafetensors([]),
      packedSafetensors(),
    ],
    read(bytes, random) {
      // With the length of the header set right, changes within it get past the first check.
      const length = bytes.length - 8 - 48;
      if (length > 0 && random.below(2) === 0) new DataView(bytes.buffer).setBigUint64(0, BigInt(length), true);
      const source = bounded(memorySource('fuzz.safetensors', bytes));
      checkPlaces(source, [...readSafetensors(source).tensors.values()]);
    },
  },
  {
    name: 'config',
    seeds: [
      Buffer.from(
        JSON.stringify({
          architectures: ['LlamaForCausalLM'],
          hidden_size: 64,
          rms_norm_eps: 1e-6,
          rope_scaling: { rope_type: 'llama3', factor: 8, low: [1, 2.5] },
          tie_word_embeddings: false,
          text: 'a"b\\c\u0001é\ud83e\udd8a',
          none: null,
        }),
      ),
    ],
    read(bytes) {
      readAll(new Fields('config.json', parseJsonObject('config.json', bytes)));
    },
  },
  {
    name: 'tokenizer',
    seeds: tokenizerJsons.map((json) => Buffer.from(JSON.stringify(json))),
    read(bytes, random) {
      const fraction = () => random.next() / 2 ** 32;
      const several = (value: unknown) => {
        for (let i = random.below(4); i >= 0; i--) value = mutated(value, fraction);
        return value;
      };
      switch (random.below(4)) {
        case 0: {
          const entries = Object.entries(several(random.pick(tokenizerMetadata)) ?? {});
          const keys = new Map(entries.map(([key, value]) => [`tokenizer.ggml.${key}`, value]));
          return use(tokenizerFromGguf(keys, 'fuzz.gguf'));
        }
        case 1:
          return use(tokenizerFromJson(parseJsonObject('tokenizer.json', bytes), {}, 'tokenizer.json'));
        default: {
          const json = several(random.pick(tokenizerJsons));
          const config = several({ bos_token: '<x>', add_bos_token: true, eos_token: { content: 'a' } });
          return use(tokenizerFromJson(json, random.pick([{}, config]), 'tokenizer.json'));
        }
      }
    },
  },
];

/** Every reader asks for bytes right after it has allocated them, so no request may be larger than a whole header. */
function bounded(source: ByteSource): ByteSource {
  return {
    ...source,
    read(target, position) {
      if (target.length > ggufLimits.headerBytes) throw new Error(`${target.length} bytes were allocated`);
      source.read(target, position);
    },
  };
}

function withEmptyTail(bytes: Uint8Array, size: number): ByteSource {
  return {
    path: 'fuzz.gguf',
    size,
    read(target, position) {
      target.fill(0);
      target.set(bytes.subarray(Math.min(position, bytes.length), position + target.length));
    },
  };
}

/** What native code relies on: all tensors within the file, and apart. */
function checkPlaces(source: ByteSource, infos: readonly TensorInfo[]): void {
  let end = 0;
  for (const { name, dtype, offset, byteLength } of infos.toSorted(
    (a, b) => a.offset - b.offset || a.byteLength - b.byteLength,
  )) {
    if (!Number.isSafeInteger(offset) || !Number.isSafeInteger(byteLength) || byteLength < 0) {
      throw new Error(`tensor ${name} has no whole place`);
    }
    if (isPacked(dtype) && offset % 64 !== 0) throw new Error(`panels of ${name} lie between cache lines`);
    if (offset < end || offset + byteLength > source.size) throw new Error(`tensor ${name} is in a wrong place`);
    end = offset + byteLength;
  }
}

/** Reads every key as every type; each has to come back or to throw an EngineError. */
function readAll(fields: Fields): void {
  for (const key of [...fields.keys(), 'absent'].slice(0, 50)) {
    for (const read of [
      () => fields.uint(key),
      () => fields.float(key),
      () => fields.string(key),
      () => fields.boolean(key),
      () => fields.uints(key),
      () => fields.floats(key),
      () => fields.strings(key),
      () => fields.booleans(key),
      () => fields.oneOf(key, ['a', 'b']),
      () => readAll(fields.child(key)),
    ]) {
      try {
        read();
      } catch (error) {
        if (!(error instanceof EngineError)) throw error;
      }
    }
  }
}
