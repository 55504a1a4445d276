import { floatToHalf, halfToFloat } from '../tensor/float16.js';
import type { Batch } from './backend.js';
import type { KvDType } from './kv-dtype.js';
import type { KvLayer } from './plan.js';
import { quantiseChunk } from './reference-q8.js';

/**
 * Keys and values of one layer, [numSlots, numKvHeads, headDim]: what reading them back from the cache's type gives. An
 * int8 row is code · scale per slot and KV head, by the rule for activations (quantiseChunk).
 */
export interface ReferenceKv extends KvLayer {
  readonly keys: Float32Array;
  readonly values: Float32Array;
}

export function writeKv(
  kv: ReferenceKv,
  k: Float32Array, // [numTokens, numKvHeads · headDim]
  v: Float32Array,
  slotMapping: Int32Array,
  kvDtype: KvDType,
): void {
  const width = kv.numKvHeads * kv.headDim;
  slotMapping.forEach((slot, t) => {
    if (slot < 0) return;
    kv.keys.set(stored(k.subarray(t * width, (t + 1) * width), kv.headDim, kvDtype), slot * width);
    kv.values.set(stored(v.subarray(t * width, (t + 1) * width), kv.headDim, kvDtype), slot * width);
  });
}

/** Rows of headDim values as they come back from the cache. */
function stored(rows: Float32Array, headDim: number, kvDtype: KvDType): Float32Array {
  switch (kvDtype) {
    case 'f32':
      return rows;
    case 'f16':
      return rows.map((value) => halfToFloat(floatToHalf(value)));
    case 'int8': {
      const codes = new Int8Array(rows.length);
      const result = new Float32Array(rows.length);
      for (let start = 0; start < rows.length; start += headDim) {
        const scale = quantiseChunk(rows, start, start + headDim, codes);
        for (let i = start; i < start + headDim; i++) result[i] = codes[i]! * scale;
      }
      return result;
    }
  }
}

/**
 * out = softmax(q · kᵀ · scale) · v per head (arXiv 1706.03762), causal: the query at position p sees p − window + 1 … p,
 * or 0 … p if window is 0. A sequence's last query is at position contextLens − 1.
 */
export function attention(
  out: Float32Array, // [numTokens, numHeads · headDim]
  q: Float32Array,
  width: number,
  kv: ReferenceKv,
  batch: Batch,
  blockSize: number,
  options: { readonly window: number; readonly scale: number },
): void {
  const { numKvHeads, headDim } = kv;
  const headsPerKv = width / headDim / numKvHeads;
  const numSeqs = batch.contextLens.length;
  const maxBlocks = batch.blockTables.length / Math.max(1, numSeqs);
  for (let s = 0; s < numSeqs; s++) {
    const contextLen = batch.contextLens[s]!;
    const blocks = batch.blockTables.subarray(s * maxBlocks, (s + 1) * maxBlocks);
    // Where the key of each position starts, in floats.
    const places = Int32Array.from({ length: contextLen }, (_, position) => {
      const slot = blocks[Math.floor(position / blockSize)]! * blockSize + (position % blockSize);
      return slot * numKvHeads * headDim;
    });
    const end = batch.queryStart[s + 1]!;
    for (let t = batch.queryStart[s]!; t < end; t++) {
      const last = contextLen - (end - t);
      const first = options.window > 0 ? Math.max(0, last - options.window + 1) : 0;
      const seen = places.subarray(first, last + 1);
      for (let start = 0; start < width; start += headDim) {
        const kvHead = Math.floor(start / headDim / headsPerKv);
        attend(out, q, t * width + start, kv, seen, kvHead * headDim, options.scale);
      }
    }
  }
}

/** One query head: q[at … at + headDim) over the positions at `places`. */
function attend(
  out: Float32Array,
  q: Float32Array,
  at: number,
  kv: ReferenceKv,
  places: Int32Array,
  headOffset: number,
  scale: number,
): void {
  const { keys, values, headDim } = kv;
  const weights = new Float64Array(places.length);
  let max = -Infinity;
  for (let p = 0; p < places.length; p++) {
    const place = places[p]! + headOffset;
    let score = 0;
    for (let i = 0; i < headDim; i++) score += q[at + i]! * keys[place + i]!;
    weights[p] = score * scale;
    max = Math.max(max, weights[p]!);
  }
  let total = 0;
  for (let p = 0; p < places.length; p++) {
    weights[p] = Math.exp(weights[p]! - max);
    total += weights[p]!;
  }
  const sums = new Float64Array(headDim);
  for (let p = 0; p < places.length; p++) {
    const place = places[p]! + headOffset;
    const weight = weights[p]!;
    for (let i = 0; i < headDim; i++) sums[i]! += weight * values[place + i]!;
  }
  for (let i = 0; i < headDim; i++) out[at + i] = sums[i]! / total;
}
