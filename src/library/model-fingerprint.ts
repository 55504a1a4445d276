import { createHash } from 'node:crypto';
import type { SessionLimits, WeightSource } from '../backend/backend.js';
import { encodePlan } from '../backend/encode-plan.js';
import { withFile } from '../formats/byte-source.js';
import type { LoadedModel } from '../model/load.js';
import { matrixBytes, rowBytes } from '../tensor/dtype.js';

/** Raised when keys and values change although plan and weights do not: another order of additions in a kernel. */
const VERSION = 1;
/** Bytes of each weight are read at so many places, evenly spaced from its first to its last. */
const SAMPLES = 4;
const SAMPLE_BYTES = 512;

/**
 * SHA-256 of everything besides tokens that decides what keys and values a session computes: the plan (with the sizes,
 * constants, windows and frequencies of the model, and how activations are treated), the types of weights on disk and in
 * memory, KV type and block size, the kind of backend, and samples of every weight. Not names, places or times of files.
 *
 * A training step changes nearly all weights, so samples tell models apart; a single weight edited by hand they may miss.
 * Throws FILE_NOT_FOUND, FILE_UNREADABLE, FORMAT_INVALID.
 */
export function modelFingerprint({ plan, weights }: LoadedModel, limits: SessionLimits, backend: string): Uint8Array {
  const hash = createHash('sha256');
  const family = backend.split(':')[0]; // every instruction set computes the same bits
  hash.update(JSON.stringify([VERSION, family, Array.from(weights.files.values(), ({ size }) => size)]));
  const sizes = { maxTokens: 0, maxRows: 0, maxSequences: 0, contextSize: 0, numBlocks: 0 }; // change no bit
  hash.update(encodePlan(plan, weights, { ...limits, ...sizes }).words);
  const sample = new Uint8Array(SAMPLE_BYTES);
  for (const path of weights.files.keys()) {
    const entries = weights.entries.filter(({ file }) => file === path);
    if (entries.length === 0) continue;
    withFile(path, 'model', (file) => {
      for (const entry of entries) {
        const span = storedBytes(entry);
        const length = Math.min(SAMPLE_BYTES, span);
        for (let i = 0; i < SAMPLES; i++) {
          file.read(sample.subarray(0, length), entry.offset + Math.floor((i * (span - length)) / (SAMPLES - 1)));
          hash.update(sample.subarray(0, length));
        }
      }
    });
  }
  return hash.digest();
}

/** From a weight's first byte to its last. The binder has checked that blocks divide its rows. */
function storedBytes({ dtype, rows, columns, transposedStride }: WeightSource): number {
  if (transposedStride === 0) return matrixBytes(dtype, rows, columns)!;
  return rowBytes(dtype, (columns - 1) * transposedStride + rows)!;
}
