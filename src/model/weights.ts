import type { WeightSource, WeightTable } from '../backend/backend.js';
import type { Weight } from '../backend/op.js';
import type { PlanBuilder } from '../backend/plan.js';
import { EngineError, invariant } from '../base/errors.js';
import type { ModelSource } from '../formats/hub.js';
import { requireTensor, type TensorInfo } from '../formats/model-file.js';
import { type DType, dtypes, isPacked, matrixBytes, partOffset } from '../tensor/dtype.js';
import type { ModelConfig } from './config.js';
import { ggufNames, type Names, type Role } from './names.js';
import { type QuantisedTypes, quantisedType } from './quantised-types.js';
import { shapes } from './shapes.js';

/** A tensor, or the rows of one that belong to a role. */
interface Place {
  /** Without `.weight` or `.bias`. */
  readonly name: string;
  /** Rows (values of a bias) before the role's, and of the whole tensor. */
  readonly firstRow: number;
  readonly totalRows: number;
  /** First rows of all roles that share the tensor. */
  readonly partStarts: readonly number[];
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

  /**
   * @param names of the family's safetensors; GGUF has names of its own
   * @param quantise what to make of matrices while they are loaded; null: nothing
   */
  constructor(
    private readonly plan: PlanBuilder,
    private readonly source: ModelSource,
    private readonly config: ModelConfig,
    names: Names,
    private readonly quantise: QuantisedTypes | null = null,
  ) {
    this.#names = source.format === 'gguf' ? ggufNames : names;
    const { prefix, roles } = this.#names;
    const isBare = prefix !== '' && !source.tensors.has(`${roles.embedding}.weight`);
    this.#cut = isBare ? prefix.length : 0;
  }

  /** A matrix, by its shape in shapes.ts. */
  matrix(role: Role, layer?: number): Weight {
    const [rows, columns] = shapes[role](this.config);
    const { name, firstRow, totalRows, partStarts } = this.#place(role, layer, '.weight');
    // Panels of the engine's own types are made of rows, whatever a checkpoint's habit is.
    const dtype = this.source.tensors.get(`${name}.weight`)?.dtype ?? 'f32';
    const transposed = this.#names.transposed && layer !== undefined && !isPacked(dtype);
    const tensor = this.#require(`${name}.weight`, transposed ? [columns, totalRows] : [totalRows, columns]);
    if (role === 'positions') refusePacked(tensor);
    const skipped = transposed ? matrixBytes(tensor.dtype, 1, firstRow) : partOffset(tensor.dtype, firstRow, columns);
    const stored = { dtype: tensor.dtype, columns, partStarts };
    const quantize = this.quantise && quantisedType(role, stored, this.quantise);
    const transposedStride = transposed ? totalRows : 0;
    return this.#bind(tensor, firstRow, skipped, { rows, columns, transposedStride, ...(quantize && { quantize }) });
  }

  /** A norm's weight. */
  vector(role: Role, layer?: number): Weight {
    const [, columns] = shapes[role](this.config);
    const { name } = this.#place(role, layer, '.weight');
    return this.#vector(this.#require(`${name}.weight`, [columns]), columns);
  }

  /** The bias of a linear layer: one value per row of its matrix. */
  bias(role: Role, layer?: number): Weight {
    const [rows] = shapes[role](this.config);
    const { name, firstRow, totalRows } = this.#place(role, layer, '.bias');
    return this.#vector(this.#require(`${name}.bias`, [totalRows]), rows, firstRow);
  }

  /** The bias of a norm: one value per column. */
  normBias(role: Role, layer?: number): Weight {
    const [, columns] = shapes[role](this.config);
    const { name } = this.#place(role, layer, '.bias');
    return this.#vector(this.#require(`${name}.bias`, [columns]), columns);
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
        const startOf = (index: number) => stacked.roles.slice(0, index).reduce((sum, of) => sum + rows(of), 0);
        const partStarts = stacked.roles.map((_, index) => startOf(index));
        const totalRows = startOf(stacked.roles.length);
        return { name, firstRow: partStarts[stacked.roles.indexOf(role)]!, totalRows, partStarts };
      }
    }
    invariant(own !== undefined, `the family's names have none for ${role}`);
    return { name: this.#fileName(own, layer), firstRow: 0, totalRows: rows(role), partStarts: [0] };
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

  /** Values first … first + columns − 1 of a tensor with one dimension. */
  #vector(tensor: TensorInfo, columns: number, first = 0): Weight {
    return this.#bind(tensor, first, matrixBytes(tensor.dtype, 1, first), { rows: 1, columns, transposedStride: 0 });
  }

  /** @param skipped bytes before the part of the tensor that begins with row (or value) `first`; null if it cannot begin there */
  #bind(
    tensor: TensorInfo,
    first: number,
    skipped: number | null,
    part: Pick<WeightSource, 'rows' | 'columns' | 'transposedStride' | 'quantize'>,
  ): Weight {
    const key = `${tensor.name} ${first}`;
    const bound = this.#bound.get(key);
    if (bound !== undefined) return bound;
    const { name, file, offset, dtype } = tensor;
    if (skipped === null) {
      const problem = `but ${dtype} cannot be cut there, where a part of the tensor starts`;
      throw new EngineError('FORMAT_INVALID', { path: file, field: `tensor ${name} row`, value: first, problem });
    }
    const weight = this.plan.weight(name, part.rows, part.columns);
    this.#entries.push({ file, offset: offset + skipped, dtype, ...part });
    this.#bound.set(key, weight);
    return weight;
  }
}

/** Rows of learned positions are added to activations, which kernels do for rows that are stored one after another. */
function refusePacked({ name, dtype }: TensorInfo): void {
  if (!isPacked(dtype)) return;
  const supported = Object.keys(dtypes).filter((type) => !isPacked(type as DType));
  throw new EngineError('DTYPE_UNSUPPORTED', { tensor: name, dtype, supported: supported.join(', ') });
}
