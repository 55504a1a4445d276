import { dtypeInMemory } from '../backend/backend.js';
import { DEFAULT_KV_DTYPE, kvRowBytes } from '../backend/kv-dtype.js';
import { openModel } from '../formats/hub.js';
import { type LoadOptions, typesAtLoad } from '../library/load-options.js';
import { loadModel } from '../model/load.js';
import { countParameters } from '../model/memory.js';
import { type DType, isQuantised, matrixBytes } from '../tensor/dtype.js';
import type { BenchModel } from './report.js';
import type { Workload } from './throughput.js';

/**
 * What a model makes a machine read and compute, from its headers alone. Bytes are those of the types that matrices are
 * stored in or quantised to; some are re-encoded for the kernels, which changes their size by at most 3 %.
 */
export interface ModelCost {
  readonly model: Omit<BenchModel, 'name'>;
  /** Tokens. */
  readonly contextLength: number;
  /** Storage types of the matrices that every token is multiplied with: most bytes first. */
  readonly dtype: string;
  /** Whether all of these are floats. */
  readonly isFloat: boolean;
  /** Weights that a step reads, whatever its batch: all but the embedding, of which it reads a row. */
  readonly stepBytes: number;
  /** Keys and values of one position. */
  readonly kvBytes: number;
  /** Multiplications and additions: of one token, and of one row of logits. */
  readonly tokenOps: number;
  readonly logitOps: number;
  /** The same for one token's attention to one position. */
  readonly attentionOps: number;
}

/** Throws what opening a model throws. */
export async function modelCost(path: string, options: Pick<LoadOptions, 'kvDtype' | 'quantize'>): Promise<ModelCost> {
  const { config, plan, weights } = loadModel(await openModel(path), {
    activations: 'q8',
    quantise: typesAtLoad(options),
  });
  const typeOf = (id: number): DType => dtypeInMemory(weights.entries[id]!);
  const bytesOf = (id: number) => {
    const { rows, columns } = weights.entries[id]!;
    return matrixBytes(typeOf(id), rows, columns)!;
  };
  const linears = plan.ops.filter((op) => op.op === 'linear');
  const ops = (rows: 'tokens' | 'logits') =>
    sum(linears.filter(({ x }) => x.rows === rows).map(({ weight }) => 2 * weight.rows * weight.columns));
  const bytesByType = new Map<DType, number>();
  for (const id of new Set(linears.map(({ weight }) => weight.id))) {
    const dtype = typeOf(id);
    bytesByType.set(dtype, (bytesByType.get(dtype) ?? 0) + bytesOf(id));
  }
  const kvDtype = options.kvDtype ?? DEFAULT_KV_DTYPE;
  return {
    model: {
      architecture: config.architecture,
      parameters: countParameters(plan),
      bytes: sum(weights.entries.map((_, id) => bytesOf(id))),
    },
    contextLength: config.contextLength,
    dtype: [...bytesByType]
      .sort(([, a], [, b]) => b - a)
      .map(([dtype]) => dtype)
      .join('+'),
    isFloat: ![...bytesByType.keys()].some(isQuantised),
    stepBytes: sum([...bytesByType.values()]),
    kvBytes: sum(plan.kvLayers.map(({ numKvHeads, headDim }) => 2 * numKvHeads * kvRowBytes(kvDtype, headDim))),
    tokenOps: ops('tokens'),
    logitOps: ops('logits'),
    attentionOps: sum(plan.kvLayers.map(({ headDim }) => 4 * config.numHeads * headDim)),
  };
}

/** Bytes that one generated token makes the machine read: its share of the weights, and all its keys and values. */
export function decodeBytes({ stepBytes, kvBytes }: ModelCost, workload: Workload): number {
  const meanContext = workload.promptTokens + (workload.generatedTokens + 1) / 2;
  return stepBytes / workload.batch + kvBytes * meanContext;
}

/** Operations of one token in a prefill: half of the prompt is before it on average, and one row of logits is wanted. */
export function prefillOps({ tokenOps, logitOps, attentionOps }: ModelCost, { promptTokens }: Workload): number {
  return tokenOps + logitOps / promptTokens + (attentionOps * (promptTokens + 1)) / 2;
}

/** Operations of one generated token. */
export function decodeOps({ tokenOps, logitOps, attentionOps }: ModelCost, workload: Workload): number {
  return tokenOps + logitOps + attentionOps * (workload.promptTokens + (workload.generatedTokens + 1) / 2);
}

function sum(values: readonly number[]): number {
  return values.reduce((total, value) => total + value, 0);
}
