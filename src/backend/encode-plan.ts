import { invariant } from '../base/errors.js';
import { dtypes } from '../tensor/dtype.js';
import { dtypeInMemory, type SessionLimits, type WeightTable } from './backend.js';
import { kvDtypes } from './kv-dtype.js';
import { type Op, opFields, opNames, opSchema } from './op.js';
import type { Plan } from './plan.js';
import { samplingFields } from './sampling.js';

/** Raised whenever the words below, or what the addon offers, change without the schemas changing. */
const ENCODING_VERSION = 5;

/**
 * Stands for everything TypeScript and native code must agree on: op table, sampling record, encoding. Generated into
 * native/op_codes.h and compared when the addon is loaded. FNV-1a, 32 bits.
 */
export const abiNumber = fnv1a(JSON.stringify([ENCODING_VERSION, opSchema, samplingFields]));

/** What crosses to native code at load. */
export interface EncodedPlan {
  /**
   * header   abi, numBuffers, numWeights, numRopeTables, numKvLayers, numOps, logits buffer, floats per token row,
   *          floats per logits row
   * limits   maxTokens, maxRows, maxSequences, contextSize, blockSize, numBlocks, KV dtype
   * buffer   width, rows (0 tokens, 1 logits), offset
   * weight   file, offset (low, high), dtype id, rows, columns, transposedStride, dtype id in memory
   * rope     numPairs, magnitude (float64), inverse frequencies (float64 each)
   * kv layer numKvHeads, headDim
   * op       op code, then its fields
   */
  readonly words: Int32Array;
  /** Of each weight, for messages. */
  readonly names: readonly string[];
  /** Files the weight words index. */
  readonly files: readonly NativeFile[];
}

export interface NativeFile {
  readonly path: string;
  /** Bytes. */
  readonly size: number;
  readonly mtimeMs: number;
}

/** The plan, where its weights lie, and what to allocate for, as 32-bit words. */
export function encodePlan(plan: Plan, weights: WeightTable, limits: SessionLimits): EncodedPlan {
  invariant(
    weights.entries.length === plan.weights.length,
    `the plan has ${plan.weights.length} weights, the weight table ${weights.entries.length}`,
  );
  const words = new WordWriter();
  words.integers(abiNumber, plan.buffers.length, plan.weights.length, plan.ropeTables.length, plan.kvLayers.length);
  words.integers(plan.ops.length, plan.logits.id, plan.arenaWidths.tokens, plan.arenaWidths.logits);
  words.integers(limits.maxTokens, limits.maxRows, limits.maxSequences, limits.contextSize);
  words.integers(limits.blockSize, limits.numBlocks, kvDtypes.indexOf(limits.kvDtype));

  for (const buffer of plan.buffers) words.integers(buffer.width, buffer.rows === 'tokens' ? 0 : 1, buffer.offset);

  const fileIndex = new Map([...weights.files.keys()].map((path, index) => [path, index]));
  for (const [id, source] of weights.entries.entries()) {
    const { name, rows, columns } = plan.weights[id]!;
    const file = fileIndex.get(source.file);
    invariant(file !== undefined, `weight ${name} lies in ${source.file}, which the weight table does not list`);
    invariant(
      source.rows === rows && source.columns === columns,
      `weight ${name} is [${source.rows}, ${source.columns}] in the table, [${rows}, ${columns}] in the plan`,
    );
    invariant(Number.isSafeInteger(source.offset) && source.offset >= 0, `weight ${name} starts at ${source.offset}`);
    words.integers(file, source.offset | 0, Math.floor(source.offset / 2 ** 32));
    words.integers(dtypes[source.dtype].id, rows, columns, source.transposedStride, dtypes[dtypeInMemory(source)].id);
  }

  for (const { inverseFrequencies, magnitude } of plan.ropeTables) {
    words.integers(inverseFrequencies.length);
    words.doubles(magnitude, ...inverseFrequencies);
  }
  for (const { numKvHeads, headDim } of plan.kvLayers) words.integers(numKvHeads, headDim);
  for (const op of plan.ops) writeOp(words, op);

  const files = [...weights.files].map(([path, { size, mtimeMs }]) => ({ path, size, mtimeMs }));
  return { words: words.finish(), names: plan.weights.map(({ name }) => name), files };
}

function writeOp(words: WordWriter, op: Op): void {
  words.integers(opNames.indexOf(op.op));
  const values = op as unknown as Record<string, { id: number } | number | string | null>;
  for (const [field, kind] of opFields(op.op)) {
    const value = values[field]!;
    switch (kind) {
      case 'buffer':
      case 'weight':
      case 'weight?':
        words.integers(value === null ? -1 : (value as { id: number }).id);
        break;
      case 'i32':
      case 'rope':
        words.integers(value as number);
        break;
      case 'f32':
        words.float(value as number);
        break;
      case 'activations':
        words.integers(value === 'q8' ? 1 : 0);
        break;
    }
  }
}

/** A growing list of 32-bit words. */
class WordWriter {
  readonly #words: number[] = [];
  readonly #scratch = new DataView(new ArrayBuffer(8));

  /** Signed 32-bit integers. */
  integers(...values: number[]): void {
    for (const value of values) {
      invariant(value === (value | 0), `${value} does not fit in a plan word`);
      this.#words.push(value);
    }
  }

  float(value: number): void {
    this.#scratch.setFloat32(0, value);
    this.#words.push(this.#scratch.getInt32(0));
  }

  /** Two words each, the low one first. */
  doubles(...values: number[]): void {
    for (const value of values) {
      this.#scratch.setFloat64(0, value);
      this.#words.push(this.#scratch.getInt32(4), this.#scratch.getInt32(0));
    }
  }

  finish(): Int32Array {
    return Int32Array.from(this.#words);
  }
}

function fnv1a(text: string): number {
  let hash = 0x811c9dc5;
  for (const byte of new TextEncoder().encode(text)) hash = Math.imul(hash ^ byte, 0x01000193);
  return hash;
}
