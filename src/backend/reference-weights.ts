import { closeSync, fstatSync, openSync, readSync } from 'node:fs';
import { EngineError, invariant } from '../base/errors.js';
import { quantisePanel } from '../quantization/quantise-panel.js';
import { dequantiseRow, isPacked, matrixBytes, rowMultiple } from '../tensor/dtype.js';
import { PANEL_ROWS, panelBytes } from '../tensor/packed.js';
import type { WeightSource, WeightTable } from './backend.js';
import type { Op } from './op.js';
import type { Plan } from './plan.js';
import { ReferenceMatrix } from './reference-matrix.js';

/** Most bytes of one read call; Node and some systems fail on 2 GiB and more. */
const MAX_READ = 2 ** 30;

/** How the ops of a plan use one weight. */
interface WeightUse {
  vector: boolean;
  floats: boolean;
  integers: boolean;
}

/**
 * The matrices of a plan, in the order of its weight table. Vectors become float32; all others are decoded if they then
 * take at most `decodeLimit` bytes together. Throws what `readMatrix` throws.
 */
export function loadMatrices(plan: Plan, weights: WeightTable, decodeLimit: number): ReferenceMatrix[] {
  const numWeights = plan.weights.length;
  invariant(weights.entries.length === numWeights, `${numWeights} weights, ${weights.entries.length} sources`);
  const uses = weightUses(plan);
  const decodedBytes = plan.weights.reduce((sum, { id, rows, columns }) => {
    const bytesPerValue = (uses[id]!.floats ? 4 : 0) + (uses[id]!.integers ? 2 : 0);
    return sum + rows * columns * bytesPerValue;
  }, 0);
  return plan.weights.map(({ id, name, rows, columns }) => {
    const source = weights.entries[id]!;
    invariant(source.rows === rows && source.columns === columns, `${name}: plan and weight table differ in shape`);
    const matrix = readMatrix(source, name, weights.files);
    const use = uses[id]!;
    if (use.vector) matrix.decode({ floats: true, integers: use.integers });
    else if (decodedBytes <= decodeLimit) matrix.decode(use);
    return matrix;
  });
}

function weightUses(plan: Plan): WeightUse[] {
  const uses = plan.weights.map(() => ({ vector: false, floats: false, integers: false }));
  for (const op of plan.ops) markUses(op, uses);
  return uses;
}

function markUses(op: Op, uses: WeightUse[]): void {
  switch (op.op) {
    case 'embed':
    case 'addPositions':
      uses[op.table.id]!.floats = true;
      break;
    case 'rmsNorm':
      uses[op.weight.id]!.vector = true;
      break;
    case 'layerNorm':
      uses[op.weight.id]!.vector = true;
      if (op.bias) uses[op.bias.id]!.vector = true;
      break;
    case 'linear':
      uses[op.weight.id]![op.activations === 'q8' ? 'integers' : 'floats'] = true;
      if (op.bias) uses[op.bias.id]!.vector = true;
      break;
  }
}

/**
 * Reads one entry of a weight table. A matrix keeps the bytes it is stored as, unless it is to be quantised; a
 * transposed one becomes float32 [rows, columns].
 *
 * Throws FILE_NOT_FOUND, FILE_UNREADABLE, OUT_OF_MEMORY, FILE_CHANGED if the file is not the one whose header was read,
 * and WEIGHT_NOT_FINITE for a value that cannot be quantised.
 */
function readMatrix(source: WeightSource, name: string, files: WeightTable['files']): ReferenceMatrix {
  const matrix = readStored(source, name, files);
  const { quantize, rows, columns } = source;
  if (quantize === undefined) return matrix;
  const bytes = allocate(matrixBytes(quantize, rows, columns)!, name);
  const panel = new Float32Array(PANEL_ROWS * columns);
  for (let first = 0, offset = 0; first < rows; first += PANEL_ROWS, offset += panelBytes(quantize, columns)) {
    const count = Math.min(PANEL_ROWS, rows - first);
    panel.fill(0);
    panel.set(matrix.floatRows(first, count).subarray(0, count * columns));
    refuseNonFinite(panel, name, first, columns);
    quantisePanel(quantize, panel, columns, bytes, offset);
  }
  return new ReferenceMatrix(quantize, rows, columns, bytes);
}

function refuseNonFinite(panel: Float32Array, name: string, first: number, columns: number): void {
  const index = panel.findIndex((value) => !Number.isFinite(value));
  if (index < 0) return;
  const place = { row: first + Math.floor(index / columns), column: index % columns };
  throw new EngineError('WEIGHT_NOT_FINITE', { tensor: name, ...place, value: String(panel[index]) });
}

function readStored(source: WeightSource, name: string, files: WeightTable['files']): ReferenceMatrix {
  const { rows, columns, dtype, transposedStride } = source;
  if (transposedStride === 0) {
    const byteLength = matrixBytes(dtype, rows, columns);
    invariant(byteLength !== null, `${name}: rows of ${columns} values cannot be stored as ${dtype}`);
    return new ReferenceMatrix(dtype, rows, columns, readBytes(source, byteLength, name, files));
  }
  invariant(!isPacked(dtype) && rowMultiple(dtype) === 1, `${name}: a transposed matrix cannot be stored as ${dtype}`);
  const valueBytes = matrixBytes(dtype, 1, 1)!;
  const stored = readBytes(source, ((columns - 1) * transposedStride + rows) * valueBytes, name, files);
  const values = new Float32Array(allocate(rows * columns * 4, name).buffer);
  const column = new Float32Array(rows);
  for (let c = 0; c < columns; c++) {
    dequantiseRow(dtype, stored, c * transposedStride * valueBytes, rows, column, 0);
    for (let r = 0; r < rows; r++) values[r * columns + c] = column[r]!;
  }
  return new ReferenceMatrix('f32', rows, columns, new Uint8Array(values.buffer));
}

function readBytes(source: WeightSource, byteLength: number, name: string, files: WeightTable['files']): Uint8Array {
  const { file: path, offset } = source;
  const bytes = allocate(byteLength, name);
  let handle: number | null = null;
  try {
    handle = openSync(path, 'r');
    const { size, mtimeMs } = fstatSync(handle);
    const stamp = files.get(path);
    if (stamp?.size !== size || stamp.mtimeMs !== mtimeMs) throw new EngineError('FILE_CHANGED', { path });
    for (let done = 0; done < byteLength; ) {
      const count = readSync(handle, bytes, done, Math.min(byteLength - done, MAX_READ), offset + done);
      invariant(count > 0, `${name} reaches beyond the end of its file`);
      done += count;
    }
  } catch (cause) {
    if (cause instanceof EngineError) throw cause;
    const code = String((cause as NodeJS.ErrnoException).code ?? cause);
    if (code === 'ENOENT') throw new EngineError('FILE_NOT_FOUND', { path, what: 'model' }, { cause });
    throw new EngineError('FILE_UNREADABLE', { path, reason: code }, { cause });
  } finally {
    if (handle !== null) closeSync(handle);
  }
  return bytes;
}

/** Zeroed bytes; throws OUT_OF_MEMORY. */
export function allocate(byteLength: number, what: string): Uint8Array<ArrayBuffer> {
  try {
    return new Uint8Array(byteLength);
  } catch (cause) {
    throw new EngineError('OUT_OF_MEMORY', { bytes: byteLength, what }, { cause });
  }
}
