import type { LoadOptions } from '../library/load-options.js';
import type { ModelCost } from './model-cost.js';

export type RungLoad = Pick<LoadOptions, 'activations' | 'quantize'>;

/** One step of the study: how the same model is run. */
export interface Rung {
  readonly name: string;
  readonly load: RungLoad;
  /** Of the processes that measure speed. */
  readonly env?: Readonly<Record<string, string>>;
  /** Default: all that are used. */
  readonly threads?: 1;
  /** Whether the step means anything for this model on these threads. */
  readonly applies: (cost: Pick<ModelCost, 'isFloat'>, threads: number) => boolean;
}

const always = () => true;
const ofFloats: Rung['applies'] = ({ isFloat }) => isFloat;

const quantised: readonly Rung[] = [
  { name: 'INT8', load: { quantize: 'int8' }, applies: ofFloats },
  { name: 'INT4', load: { quantize: 'int4' }, applies: ofFloats },
];

/** Steps of backends that can do more than interpret a plan. */
const ladders: ReadonlyMap<string, readonly Rung[]> = new Map([
  [
    'native-cpu',
    [
      {
        name: 'plain C++',
        load: { activations: 'f32' },
        env: { ENGINE_CPU_ISA: 'scalar' },
        threads: 1,
        applies: always,
      },
      { name: 'SIMD', load: { activations: 'f32' }, threads: 1, applies: always },
      { name: 'threads', load: { activations: 'f32' }, applies: (_, threads) => threads > 1 },
      { name: '8-bit activations', load: { activations: 'q8' }, applies: ({ isFloat }) => !isFloat },
      ...quantised,
    ],
  ],
  [
    'native-cuda',
    [
      {
        name: 'plain ops launched one by one',
        load: {},
        env: { ENGINE_CUDA_FUSION: 'off', ENGINE_CUDA_GRAPHS: 'off', ENGINE_CUDA_OVERLAP: 'off' },
        applies: always,
      },
      { name: 'fused ops, overlapping, CUDA graph', load: {}, applies: always },
      ...quantised,
    ],
  ],
]);

const interpreted: readonly Rung[] = [{ name: 'recorded plan', load: {}, applies: always }, ...quantised];

/**
 * From the slowest to the fastest; every one keeps what the one before it brought.
 *
 * @param backend its name, with or without what it runs on: `native-cpu:avx2`
 */
export function rungsOf(backend: string): readonly Rung[] {
  return ladders.get(backend.split(':')[0]!) ?? interpreted;
}
