import { invariant } from '../base/errors.js';
import { type DType, dequantiseRows, dtypes, forEachBlock } from '../tensor/dtype.js';
import { createIntegerBlock, type IntegerBlock, SCALE_GROUP } from '../tensor/integer-block.js';
import { PANEL_ROWS } from '../tensor/packed.js';

/** Rows of quantised weights as integers: weight i of a block is d · products[i] − dmin · mins[⌊i / 16⌋]. */
export interface IntegerRows {
  readonly products: Int16Array; // [rows, columns] scale · code
  readonly mins: Uint8Array; // [rows, columns / SCALE_GROUP]
  readonly d: Float32Array; // [rows, columns / blockSize]
  readonly dmin: Float32Array; // [rows, columns / blockSize]
}

/**
 * A weight matrix [rows, columns]. It stays as it is stored and decodes a panel of rows at a time, or, for small models,
 * is decoded once by `decode`.
 */
export class ReferenceMatrix {
  #stored: Uint8Array | null;
  #floats: Float32Array | null = null; // [rows, columns]
  #integers: IntegerRows | null = null;
  /** Panels, overwritten by each call; allocated on first use. */
  #floatPanel: Float32Array | null = null;
  #integerPanel: IntegerRows | null = null;

  constructor(
    readonly dtype: DType,
    readonly rows: number,
    readonly columns: number,
    stored: Uint8Array,
  ) {
    this.#stored = stored;
    // Bytes of float32 are the values, on the little-endian machines Node runs on.
    if (dtype === 'f32') this.#floats = new Float32Array(stored.buffer, stored.byteOffset, rows * columns);
  }

  /** Values per storage block. */
  get blockSize(): number {
    return dtypes[this.dtype].blockSize;
  }

  /** Decodes everything in the given forms and drops the stored bytes. */
  decode(forms: { readonly floats: boolean; readonly integers: boolean }): void {
    const { rows, columns } = this;
    if (forms.floats && this.#floats === null) {
      const floats = new Float32Array(rows * columns);
      this.#decodeFloats(0, rows, floats);
      this.#floats = floats;
    }
    if (forms.integers) {
      const integers = createIntegerRows(rows, columns, this.blockSize);
      this.#decodeIntegers(0, rows, integers);
      this.#integers = integers;
    }
    if (forms.floats || forms.integers) this.#stored = null;
  }

  /** Rows first … first + count − 1 (at most PANEL_ROWS) as floats [count, columns], valid until the next call. */
  floatRows(first: number, count: number): Float32Array {
    const { columns } = this;
    if (this.#floats) return this.#floats.subarray(first * columns, (first + count) * columns);
    this.#floatPanel ??= new Float32Array(PANEL_ROWS * columns);
    this.#decodeFloats(first, count, this.#floatPanel);
    return this.#floatPanel;
  }

  /** The same rows as integers; the type must be quantised. */
  integerRows(first: number, count: number): IntegerRows {
    const { columns, blockSize } = this;
    if (this.#integers) {
      const slice = <T extends Uint8Array | Int16Array | Float32Array>(array: T, perRow: number): T =>
        array.subarray(first * perRow, (first + count) * perRow) as T;
      return {
        products: slice(this.#integers.products, columns),
        mins: slice(this.#integers.mins, columns / SCALE_GROUP),
        d: slice(this.#integers.d, columns / blockSize),
        dmin: slice(this.#integers.dmin, columns / blockSize),
      };
    }
    this.#integerPanel ??= createIntegerRows(PANEL_ROWS, columns, blockSize);
    this.#decodeIntegers(first, count, this.#integerPanel);
    return this.#integerPanel;
  }

  #decodeFloats(first: number, count: number, out: Float32Array): void {
    dequantiseRows(this.dtype, this.#source(), this.columns, first, count, out);
  }

  #decodeIntegers(first: number, count: number, out: IntegerRows): void {
    const block = createIntegerBlock(this.blockSize);
    forEachBlock(this.dtype, this.#source(), this.columns, first, count, block, (index) =>
      copyBlock(block, index, out),
    );
  }

  #source(): Uint8Array {
    invariant(this.#stored, 'a matrix is decoded to every form it is used in');
    return this.#stored;
  }
}

function createIntegerRows(rows: number, columns: number, blockSize: number): IntegerRows {
  const values = rows * columns;
  return {
    products: new Int16Array(values),
    mins: new Uint8Array(values / SCALE_GROUP),
    d: new Float32Array(values / blockSize),
    dmin: new Float32Array(values / blockSize),
  };
}

/** Appends a block as number `index` of the rows. */
function copyBlock(block: IntegerBlock, index: number, out: IntegerRows): void {
  const { codes, scales, mins } = block;
  const start = index * codes.length;
  for (let g = 0; g < scales.length; g++) {
    const end = (g + 1) * SCALE_GROUP;
    for (let i = g * SCALE_GROUP; i < end; i++) out.products[start + i] = scales[g]! * codes[i]!;
  }
  out.mins.set(mins, index * mins.length);
  out.d[index] = block.d;
  out.dmin[index] = block.dmin;
}
