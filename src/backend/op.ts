/**
 * The whole vocabulary between a model and a machine. A plan is a straight list of these ops; every backend
 * interprets the same list, and `reference.ts` defines what each op means.
 *
 * Shapes: T = tokens of the step (or R = rows whose logits are wanted, after `selectRows`); a buffer is
 * [T or R, width] in float32, row-major. "row" below is one row of a buffer.
 *
 * Field kinds: `buffer` an activation buffer; `weight` an entry of the weight table; `weight?` the same or absent;
 * `i32`, `f32` plain numbers; `rope` an index into the plan's rope tables; `activations` how a linear treats x.
 * Every field is one 32-bit word in the encoded plan (f32 bit-cast), in the order written here: native structs are
 * generated from this table (`npm run generate`).
 */
export const opSchema = {
  /** out[t] = table[tokenIds[t]] */
  embed: { out: 'buffer', table: 'weight' },
  /** x[t] += table[positions[t]] (learned positions, GPT-2) */
  addPositions: { x: 'buffer', table: 'weight' },
  /** out = x / sqrt(mean(x²) + eps) · weight, over groups of weight.columns values (whole rows, or each head). arXiv 1910.07467 */
  rmsNorm: { out: 'buffer', x: 'buffer', weight: 'weight', eps: 'f32' },
  /** out = (x − mean(x)) / sqrt(var(x) + eps) · weight + bias, over whole rows. arXiv 1607.06450 */
  layerNorm: { out: 'buffer', x: 'buffer', weight: 'weight', bias: 'weight?', eps: 'f32' },
  /**
   * out = x · weightᵀ + bias. With `q8` activations each chunk of x (one storage block of the weight's type, 32 or
   * 256 values) becomes int8 with one scale = max|x| / 127, products are summed exactly in int32 per block, and the
   * blocks are added in ascending order.
   */
  linear: { out: 'buffer', x: 'buffer', weight: 'weight', bias: 'weight?', activations: 'activations' },
  /**
   * Rotates the first 2·(length of the table) values of every head, in place, by positions[t] · inverseFrequencies.
   * Pairs are (i, i + half) or, interleaved (GGUF's llama layout), (2i, 2i + 1). arXiv 2104.09864
   */
  rope: { x: 'buffer', headDim: 'i32', table: 'rope', interleaved: 'i32' },
  /** Stores k and v of each token in KV slot slotMapping[t] of this layer; slot −1 stores nothing. */
  writeKv: { k: 'buffer', v: 'buffer', layer: 'i32' },
  /**
   * out = softmax(q·kᵀ · scale, causal) · v per head, keys and values from the sequence's blocks. Query head h uses
   * KV head floor(h / (numHeads / numKvHeads)). window > 0: a query at position p sees positions p − window + 1 … p.
   */
  attention: { out: 'buffer', q: 'buffer', layer: 'i32', window: 'i32', scale: 'f32' },
  /** out = silu(gate) · up (SwiGLU, arXiv 2002.05202) */
  siluMul: { out: 'buffer', gate: 'buffer', up: 'buffer' },
  /** out = gelu(x): tanh approximation if approximate = 1, exact (erf) if 0. arXiv 1606.08415 */
  gelu: { out: 'buffer', x: 'buffer', approximate: 'i32' },
  /** x += y */
  add: { x: 'buffer', y: 'buffer' },
  /** out[r] = x[row r of the batch's sampling records]: only rows whose logits are wanted go on. */
  selectRows: { out: 'buffer', x: 'buffer' },
} as const satisfies Record<string, Record<string, FieldKind>>;

export type FieldKind = 'buffer' | 'weight' | 'weight?' | 'i32' | 'f32' | 'rope' | 'activations';
export type OpName = keyof typeof opSchema;

/** An activation buffer, float32 [rows, width]. */
export interface Buffer {
  readonly id: number;
  readonly width: number;
  /** Whether its rows are the step's tokens or the rows whose logits are wanted. */
  readonly rows: 'tokens' | 'logits';
}

/** A matrix [rows, columns] of the weight table; vectors have one row and are float32 in memory whatever the file says. */
export interface Weight {
  readonly id: number;
  readonly name: string;
  readonly rows: number;
  readonly columns: number;
}

/** How a linear treats its input: exact float32, or 8-bit integers per block (the fast path for quantised weights). */
export type Activations = 'f32' | 'q8';

interface FieldTypes {
  buffer: Buffer;
  weight: Weight;
  'weight?': Weight | null;
  i32: number;
  f32: number;
  rope: number;
  activations: Activations;
}

type OpFields<N extends OpName> = {
  readonly [F in keyof (typeof opSchema)[N]]: (typeof opSchema)[N][F] extends FieldKind
    ? FieldTypes[(typeof opSchema)[N][F]]
    : never;
};

/** One instruction: its name and its fields. */
export type OpOf<N extends OpName> = { readonly op: N } & OpFields<N>;
export type Op = { [N in OpName]: OpOf<N> }[OpName];

/** Op codes are positions in the schema; the encoded plan carries an ABI number that changes with the schema. */
export const opNames = Object.keys(opSchema) as OpName[];

/** Fields of an op in encoding order. */
export function opFields(name: OpName): [field: string, kind: FieldKind][] {
  return Object.entries(opSchema[name]);
}
