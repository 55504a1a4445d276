import type { QuantisedTypes } from '../model/quantised-types.js';
import type { DType } from '../tensor/dtype.js';
import { PACKED_BLOCK } from '../tensor/packed.js';
import type { ErrorSums, PanelQuantiser } from './panel-quantiser.js';
import type { TensorPlan } from './tensor-plan.js';

export interface Totals {
  readonly tensors: number;
  readonly weights: number;
  readonly bytesBefore: number;
  readonly bytesAfter: number;
  readonly bitsPerWeight: number;
  /** √(Σ (weight − quantised)² / Σ weight²) over what was quantised; 0 for what is kept. */
  readonly relativeError: number;
}

export interface QuantisationSummary {
  readonly quantiser: PanelQuantiser['name'];
  /** By storage type in the quantised file. */
  readonly types: readonly (Totals & { readonly dtype: DType })[];
  readonly total: Totals;
  /** Matrices whose rows the groups of the wanted type do not divide, and the type they have got. */
  readonly exceptions: readonly { readonly tensor: string; readonly columns: number; readonly dtype: DType }[];
}

export function summarise(
  plans: readonly TensorPlan[],
  sums: readonly ErrorSums[],
  types: QuantisedTypes,
  quantiser: PanelQuantiser['name'],
): QuantisationSummary {
  const indices = plans.map((_, index) => index);
  const dtypes = [...new Set(plans.map(({ output }) => output.dtype))];
  const totalsOf = (chosen: readonly number[]) =>
    totals(
      chosen.map((i) => plans[i]!),
      chosen.map((i) => sums[i]!),
    );
  return {
    quantiser,
    types: dtypes.map((dtype) => {
      return { dtype, ...totalsOf(indices.filter((i) => plans[i]!.output.dtype === dtype)) };
    }),
    total: totalsOf(indices),
    exceptions: plans.flatMap(({ kind, columns, output: { name, dtype, shape } }) => {
      const isOdd = kind === 'copy' ? columns % PACKED_BLOCK !== 0 : dtype !== types.layers && dtype !== types.head;
      return kind !== 'floats' && shape.length === 2 && isOdd ? [{ tensor: name, columns, dtype }] : [];
    }),
  };
}

function totals(plans: readonly TensorPlan[], sums: readonly ErrorSums[]): Totals {
  const sum = <T>(list: readonly T[], of: (item: T) => number) => list.reduce((total, item) => total + of(item), 0);
  const weights = sum(plans, ({ source }) => source.shape.reduce((product, size) => product * size, 1));
  const bytesAfter = sum(plans, ({ output }) => output.byteLength);
  const squaredSum = sum(sums, (of) => of.squaredSum);
  return {
    tensors: plans.length,
    weights,
    bytesBefore: sum(plans, ({ source }) => source.byteLength),
    bytesAfter,
    bitsPerWeight: (8 * bytesAfter) / weights,
    relativeError: squaredSum === 0 ? 0 : Math.sqrt(sum(sums, (of) => of.squaredError) / squaredSum),
  };
}
