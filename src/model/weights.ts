import type { WeightSource, WeightTable } from '../backend/backend.js';
import type { Weight } from '../backend/op.js';
import type { PlanBuilder } from '../backend/plan.js';
import { EngineError, invariant } from '../base/errors.js';
import type { ModelSource } from '../formats/hub.js';
import { requireTensor, type TensorInfo } from '../formats/model-file.js';
import { rowBytes } from '../tensor/dtype.js';
import type { ModelConfig } from './config.js';
import { ggufNames, type Names, type Role } from './names.js';
import { shapes } from './shapes.js';

/** A tensor, or the rows of one that belong to a role. */
interface Place {
  /** Without `.weight` or `.bias`. */
  readonly name: string;
  /** Rows (values of a bias) before the role's, and of the whole tensor. */
  readonly firstRow: number;
  readonly totalRows: number;
}

/**
 * Finds the tensor of each role, checks its shape, and makes it an entry of the plan's weight table. Bytes are not
 * read. All methods throw TENSOR_MISSING, TENSOR_SHAPE and DTYPE_UNSUPPORTED.
 */
export class WeightBinder {
  readonly #names: Names;
  /** What to cut off the names in `#names`. */
  readonly #cut: number;
  readonly #entries: WeightSource[] = [];
  /** By tensor and first row: a tensor that is used twice, as tied embeddings are, is one entry. */
  readonly #bound = new Map<string, Weight>();
  readonly #used = new Set<string>();

  /** @param names of the family's safetensors; GGUF has names of its own */
  constructor(
    private readonly plan: PlanBuilder,
    private readonly source: ModelSource,
    private readonly config: ModelConfig,
    names: Names,
  ) {
    this.#names = source.format === 'gguf' ? ggufNames : names;
    const { prefix, roles } = this.#names;
    const isBare = prefix !== '' && !source.tensors.has(`${roles.embedding}.weight`);
    this.#cut = isBare ? prefix.length : 0;
  }

  /** A matrix, by its shape in shapes.ts. */
  matrix(role: Role, layer?: number): Weight {
    const [rows, columns] = shapes[role](this.config);
    const { name, firstRow, totalRows } = this.#place(role, layer, '.weight');
    const transposed = this.#names.transposed && layer !== undefined;
    const tensor = this.#require(`${name}.weight`, transposed ? [columns, totalRows] : [totalRows, columns]);
    const stride = transposed ? 1 : columns;
    return this.#bind(tensor, { rows, columns, skip: firstRow * stride, transposedStride: transposed ? totalRows : 0 });
  }

  /** A norm's weight. */
  vector(role: Role, layer?: number): Weight {
    const [, columns] = shapes[role](this.config);
    const { name } = this.#place(role, layer, '.weight');
    return this.#bind(this.#require(`${name}.weight`, [columns]), { rows: 1, columns, skip: 0, transposedStride: 0 });
  }

  /** The bias of a linear layer: one value per row of its matrix. */
  bias(role: Role, layer?: number): Weight {
    const [rows] = shapes[role](this.config);
    const { name, firstRow, totalRows } = this.#place(role, layer, '.bias');
    const tensor = this.#require(`${name}.bias`, [totalRows]);
    return this.#bind(tensor, { rows: 1, columns: rows, skip: firstRow, transposedStride: 0 });
  }

  /** The bias of a norm: one value per column. */
  normBias(role: Role, layer?: number): Weight {
    const [, columns] = shapes[role](this.config);
    const { name } = this.#place(role, layer, '.bias');
    return this.#bind(this.#require(`${name}.bias`, [columns]), { rows: 1, columns, skip: 0, transposedStride: 0 });
  }

  /** How the weight is stored. */
  sourceOf(weight: Weight): WeightSource {
    return this.#entries[weight.id]!;
  }

  /** The weight table. Throws TENSOR_UNEXPECTED for what no op uses: then the forward pass is not this model's. */
  finish(): WeightTable {
    for (const name of this.source.tensors.keys()) {
      if (this.#used.has(name) || this.#names.ignored.test(name)) continue;
      const { architecture } = this.config;
      throw new EngineError('TENSOR_UNEXPECTED', { path: this.source.path, tensor: name, architecture });
    }
    return { entries: this.#entries, files: this.source.files };
  }

  #place(role: Role, layer: number | undefined, suffix: '.weight' | '.bias'): Place {
    const { roles, stacked } = this.#names;
    const rows = (of: Role) => shapes[of](this.config)[0];
    const own = roles[role];
    if (stacked?.roles.includes(role)) {
      const name = this.#fileName(stacked.name, layer);
      if (own === undefined || this.source.tensors.has(name + suffix)) {
        const before = stacked.roles.slice(0, stacked.roles.indexOf(role));
        const sum = (list: readonly Role[]) => list.reduce((total, of) => total + rows(of), 0);
        return { name, firstRow: sum(before), totalRows: sum(stacked.roles) };
      }
    }
    invariant(own !== undefined, `the family's names have none for ${role}`);
    return { name: this.#fileName(own, layer), firstRow: 0, totalRows: rows(role) };
  }

  #fileName(name: string, layer: number | undefined): string {
    const full = layer === undefined ? name : name.replace('#', String(layer));
    return full.startsWith(this.#names.prefix) ? full.slice(this.#cut) : full;
  }

  #require(name: string, expected: readonly number[]): TensorInfo {
    const tensor = requireTensor(this.source, name);
    if (tensor.shape.length !== expected.length || tensor.shape.some((size, i) => size !== expected[i])) {
      throw new EngineError('TENSOR_SHAPE', { tensor: name, shape: tensor.shape, expected });
    }
    this.#used.add(name);
    return tensor;
  }

  /** @param part which part of the tensor; `skip` counts values before the first */
  #bind(tensor: TensorInfo, part: { rows: number; columns: number; skip: number; transposedStride: number }): Weight {
    const { rows, columns, skip, transposedStride } = part;
    const key = `${tensor.name} ${skip}`;
    const bound = this.#bound.get(key);
    if (bound !== undefined) return bound;
    const skipped = rowBytes(tensor.dtype, skip);
    invariant(skipped !== null, `a part of ${tensor.name} starts within a block`);
    const weight = this.plan.weight(tensor.name, rows, columns);
    const { file, offset, dtype } = tensor;
    this.#entries.push({ file, offset: offset + skipped, dtype, rows, columns, transposedStride });
    this.#bound.set(key, weight);
    return weight;
  }
}
