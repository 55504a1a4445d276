import { invariant } from '../base/errors.js';
import { type Activations, type Buffer, type Op, opFields, opNames, type Weight } from './op.js';

/** Rotation speeds of one RoPE variant. Angle of pair i at position p: p · inverseFrequencies[i]; cos and sin · magnitude. */
export interface RopeTable {
  /** float64, one per rotated pair. */
  readonly inverseFrequencies: readonly number[];
  /** Factor on cos and sin (YaRN's attention factor); 1 for all other variants. */
  readonly magnitude: number;
}

/** Keys and values of one layer: per slot [numKvHeads, headDim] each. */
export interface KvLayer {
  readonly numKvHeads: number;
  readonly headDim: number;
}

/** Where a buffer lives: floats per row from the start of its arena; base address = offset · row capacity. */
export interface PlacedBuffer extends Buffer {
  readonly offset: number;
}

/** A model's forward pass: a straight list of ops, no control flow, no shapes left to infer. */
export interface Plan {
  readonly ops: readonly Op[];
  readonly buffers: readonly PlacedBuffer[];
  readonly weights: readonly Weight[];
  readonly ropeTables: readonly RopeTable[];
  readonly kvLayers: readonly KvLayer[];
  /** [R, vocabSize] */
  readonly logits: Buffer;
  /** Floats per token row and per logits row of the two arenas. */
  readonly arenaWidths: { readonly tokens: number; readonly logits: number };
}

/** Floats; buffers start at multiples of it, so that every base is 64-byte aligned. */
const ALIGNMENT = 16;

/**
 * Records a forward pass. A model calls one method per line of the paper; `finish` assigns memory, reusing a buffer's
 * place as soon as its last reader has run.
 */
export class PlanBuilder {
  readonly #ops: Op[] = [];
  readonly #weights: Weight[] = [];
  readonly #buffers: Buffer[] = [];
  readonly #ropeTables: RopeTable[] = [];
  readonly #kvLayers: KvLayer[] = [];

  /** Next entry of the weight table; a vector has rows = 1. */
  weight(name: string, rows: number, columns: number): Weight {
    const weight = { id: this.#weights.length, name, rows, columns };
    this.#weights.push(weight);
    return weight;
  }

  ropeTable(table: RopeTable): number {
    return this.#ropeTables.push(table) - 1;
  }

  /** Declares the KV cache of the next layer and returns the layer's number. */
  kvLayer(layer: KvLayer): number {
    return this.#kvLayers.push(layer) - 1;
  }

  embed(table: Weight): Buffer {
    const out = this.#buffer(table.columns, 'tokens');
    this.#ops.push({ op: 'embed', out, table });
    return out;
  }

  addPositions(x: Buffer, table: Weight): void {
    invariant(x.width === table.columns, `addPositions: widths ${x.width} and ${table.columns} differ`);
    this.#ops.push({ op: 'addPositions', x, table });
  }

  rmsNorm(x: Buffer, weight: Weight, eps: number): Buffer {
    invariant(x.width % weight.columns === 0, `rmsNorm: width ${x.width} is no multiple of ${weight.columns}`);
    const out = this.#buffer(x.width, x.rows);
    this.#ops.push({ op: 'rmsNorm', out, x, weight, eps });
    return out;
  }

  layerNorm(x: Buffer, weight: Weight, bias: Weight | null, eps: number): Buffer {
    invariant(x.width === weight.columns, `layerNorm: widths ${x.width} and ${weight.columns} differ`);
    const out = this.#buffer(x.width, x.rows);
    this.#ops.push({ op: 'layerNorm', out, x, weight, bias, eps });
    return out;
  }

  linear(x: Buffer, weight: Weight, bias: Weight | null, activations: Activations): Buffer {
    invariant(x.width === weight.columns, `linear ${weight.name}: input width ${x.width}, columns ${weight.columns}`);
    const out = this.#buffer(weight.rows, x.rows);
    this.#ops.push({ op: 'linear', out, x, weight, bias, activations });
    return out;
  }

  rope(x: Buffer, headDim: number, table: number, interleaved: boolean): void {
    this.#ops.push({ op: 'rope', x, headDim, table, interleaved: interleaved ? 1 : 0 });
  }

  writeKv(k: Buffer, v: Buffer, layer: number): void {
    this.#ops.push({ op: 'writeKv', k, v, layer });
  }

  attention(q: Buffer, layer: number, options: { scale: number; window: number }): Buffer {
    const out = this.#buffer(q.width, q.rows);
    this.#ops.push({ op: 'attention', out, q, layer, window: options.window, scale: options.scale });
    return out;
  }

  siluMul(gate: Buffer, up: Buffer): Buffer {
    invariant(gate.width === up.width, `siluMul: widths ${gate.width} and ${up.width} differ`);
    const out = this.#buffer(gate.width, gate.rows);
    this.#ops.push({ op: 'siluMul', out, gate, up });
    return out;
  }

  gelu(x: Buffer, approximate: boolean): Buffer {
    const out = this.#buffer(x.width, x.rows);
    this.#ops.push({ op: 'gelu', out, x, approximate: approximate ? 1 : 0 });
    return out;
  }

  add(x: Buffer, y: Buffer): void {
    invariant(x.width === y.width, `add: widths ${x.width} and ${y.width} differ`);
    this.#ops.push({ op: 'add', x, y });
  }

  selectRows(x: Buffer): Buffer {
    const out = this.#buffer(x.width, 'logits');
    this.#ops.push({ op: 'selectRows', out, x });
    return out;
  }

  /** The finished plan. `reuse: false` keeps every buffer alive to the end, so that tests can read all of them. */
  finish(logits: Buffer, { reuse = true }: { reuse?: boolean } = {}): Plan {
    invariant(logits.rows === 'logits', 'a plan ends in rows chosen by selectRows');
    const uses = this.#ops.map(buffersOf);
    const tokens = place(uses, this.#buffers, 'tokens', logits, reuse);
    const rows = place(uses, this.#buffers, 'logits', logits, reuse);
    return {
      ops: this.#ops,
      buffers: this.#buffers.map((b) => ({ ...b, offset: (b.rows === 'tokens' ? tokens : rows).offsets.get(b.id)! })),
      weights: this.#weights,
      ropeTables: this.#ropeTables,
      kvLayers: this.#kvLayers,
      logits,
      arenaWidths: { tokens: tokens.width, logits: rows.width },
    };
  }

  #buffer(width: number, rows: Buffer['rows']): Buffer {
    const buffer = { id: this.#buffers.length, width, rows };
    this.#buffers.push(buffer);
    return buffer;
  }
}

/**
 * A plan's head, the linear that makes its logits, by its place in the plan's ops; −1 if it has none. What it reads are
 * the hidden states; it and what follows is only needed for logits.
 */
export function headIndex({ ops, logits }: Pick<Plan, 'ops' | 'logits'>): number {
  return ops.findLastIndex((op) => op.op === 'linear' && op.out.id === logits.id);
}

/** The rows that a plan's head reads. Throws INTERNAL if it has none. */
export function hiddenOf(plan: Plan): Buffer {
  const head = plan.ops[headIndex(plan)];
  invariant(head?.op === 'linear', 'hidden states of a plan whose logits no linear makes');
  return head.x;
}

const bufferFields = new Map(
  opNames.map((name) => [name, opFields(name).flatMap(([field, kind]) => (kind === 'buffer' ? [field] : []))]),
);

/** Buffers an op reads or writes. */
export function buffersOf(op: Op): Buffer[] {
  const fields = op as unknown as Record<string, Buffer>;
  return bufferFields.get(op.op)!.map((field) => fields[field]!);
}

/** First-fit placement over live ranges: a buffer is live from the first op that uses it to the last. */
function place(
  uses: readonly (readonly Buffer[])[], // of each op
  buffers: readonly Buffer[],
  rows: Buffer['rows'],
  logits: Buffer,
  reuse: boolean,
) {
  const lastUse = new Map<number, number>();
  uses.forEach((used, index) => {
    for (const buffer of used) lastUse.set(buffer.id, index);
  });
  if (!reuse) for (const buffer of buffers) lastUse.set(buffer.id, uses.length);
  lastUse.set(logits.id, uses.length);

  const offsets = new Map<number, number>();
  const live: { start: number; end: number; id: number }[] = []; // sorted by start, in floats per row
  let width = 0;
  uses.forEach((used, index) => {
    for (const buffer of used) {
      if (buffer.rows !== rows || offsets.has(buffer.id)) continue;
      const size = Math.ceil(buffer.width / ALIGNMENT) * ALIGNMENT;
      let start = 0;
      let at = 0;
      while (at < live.length && live[at]!.start < start + size) start = Math.max(start, live[at++]!.end);
      live.splice(at, 0, { start, end: start + size, id: buffer.id });
      offsets.set(buffer.id, start);
      width = Math.max(width, start + size);
    }
    for (let i = live.length - 1; i >= 0; i--) if (lastUse.get(live[i]!.id)! <= index) live.splice(i, 1);
  });
  return { offsets, width };
}
