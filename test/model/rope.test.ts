import { describe, expect, test } from 'vitest';
import { readModelConfig } from '../../src/model/load.js';
import { ropeTable } from '../../src/model/rope.js';
import { expectEngineError } from '../formats/engine-error.js';
import { ggufSource, safetensorsSource } from './sources.js';

const sizes = { head_dim: 16, max_position_embeddings: 16384 };

function tableOf(config: Readonly<Record<string, unknown>>) {
  const { rope } = readModelConfig(safetensorsSource({ ...sizes, rope_theta: null, ...config }));
  return ropeTable(rope!, null);
}

function ggufTableOf(metadata: Readonly<Record<string, unknown>>) {
  const { rope } = readModelConfig(
    ggufSource({ 'llama.attention.key_length': 16, 'llama.context_length': 16384, ...metadata }),
  );
  return ropeTable(rope!, null);
}

const plain = [1, 0.3162278, 0.1, 0.03162278, 0.01, 0.003162278, 0.001, 0.0003162278];
const yarn = [1, 0.3162278, 0.1, 0.02569351, 0.00625, 0.001383497, 0.00025, 7.905695e-5];
const yarnParameters = { rope_type: 'yarn', factor: 4, original_max_position_embeddings: 4096, rope_theta: 10000 };

/** rope_parameters, inverse frequencies and attention factor: computed by transformers 5.18 in float32. */
const cases: readonly (readonly [name: string, parameters: object, frequencies: readonly number[], factor: number])[] =
  [
    ['default', { rope_type: 'default', rope_theta: 10000 }, plain, 1],
    ['partial', { rope_type: 'default', partial_rotary_factor: 0.5 }, [1, 0.1, 0.01, 0.001], 1],
    ['linear', { rope_type: 'linear', factor: 4 }, plain.map((frequency) => frequency / 4), 1],
    ['dynamic', { rope_type: 'dynamic', factor: 4 }, plain, 1],
    [
      'llama3',
      {
        rope_type: 'llama3',
        rope_theta: 500000,
        factor: 8,
        low_freq_factor: 1,
        high_freq_factor: 4,
        original_max_position_embeddings: 8192,
      },
      [1, 0.1939228, 0.03760603, 0.007292665, 0.000524846, 3.428102e-5, 6.64787e-6, 1.289173e-6],
      1,
    ],
    ['yarn', yarnParameters, yarn, 1.138629436111989],
    [
      'yarn with other betas',
      { ...yarnParameters, factor: 16, beta_fast: 64, beta_slow: 2 },
      [1, 0.3162278, 0.1, 0.02421119, 0.0053125, 0.0009388012, 6.25e-5, 1.976424e-5],
      1.2772588722239782,
    ],
    [
      'yarn without rounding of the ramp',
      { ...yarnParameters, rope_theta: 150000, truncate: false },
      [1, 0.225418, 0.05081327, 0.007847052, 0.0009364366, 0.0001455067, 3.279983e-5, 7.393672e-6],
      1.138629436111989,
    ],
    [
      'yarn with mscale',
      { ...yarnParameters, factor: 40, mscale: 1, mscale_all_dim: 0.8 },
      [1, 0.3162278, 0.1, 0.02391472, 0.005125, 0.0008498622, 2.5e-5, 7.905694e-6],
      1.0569662567531275,
    ],
    ['yarn with its attention factor', { ...yarnParameters, attention_factor: 1.5 }, yarn, 1.5],
    ['yarn without a factor', { ...yarnParameters, factor: null }, yarn, 1.138629436111989],
    [
      'yarn without an original context',
      { ...yarnParameters, original_max_position_embeddings: null },
      [1, 0.3162278, 0.1, 0.03162278, 0.008125, 0.001976424, 0.0004375, 7.905695e-5],
      1.138629436111989,
    ],
  ];

function expectTable(table: ReturnType<typeof ropeTable>, frequencies: readonly number[], factor: number): void {
  expect(table.magnitude).toBeCloseTo(factor, 12);
  expect(table.inverseFrequencies).toHaveLength(frequencies.length);
  for (const [i, expected] of frequencies.entries()) {
    expect(Math.abs(table.inverseFrequencies[i]! / expected - 1), `pair ${i}`).toBeLessThan(2e-6);
  }
}

describe('rotation speeds from config.json', () => {
  test.each(cases)('%s', (_, parameters, frequencies, factor) => {
    expectTable(tableOf({ rope_parameters: parameters }), frequencies, factor);
  });

  test('the keys of transformers 4 mean the same', () => {
    const { rope_theta, rope_type, ...rest } = yarnParameters;
    expectTable(tableOf({ rope_theta, rope_scaling: { type: rope_type, ...rest } }), yarn, 1.138629436111989);
    expectTable(tableOf({ rope_theta, rope_scaling: null }), plain, 1);
    expectTable(tableOf({ rope_theta, partial_rotary_factor: 0.5 }), [1, 0.1, 0.01, 0.001], 1);
  });

  const refused: readonly (readonly [parameters: object, message: string])[] = [
    [
      { rope_type: 'longrope', factor: 4 },
      'rope_type is "longrope", which is not supported; supported: default, linear',
    ],
    [{ rope_type: 'toString' }, 'rope_type is "toString"'],
    [{ rope_type: 'linear' }, 'factor is missing'],
    [{ rope_type: 'linear', factor: 0 }, 'factor is 0'],
    [{ rope_type: 'linear', factor: '4' }, 'factor is "4"'],
    [{ rope_type: 'default', rope_theta: -1 }, 'rope_theta is -1'],
    [{ rope_type: 'default', partial_rotary_factor: 0.2 }, 'partial_rotary_factor is 0.2, but 3 of 16'],
    [{ rope_type: 'llama3', factor: 8, low_freq_factor: 4, high_freq_factor: 4 }, 'high_freq_factor is 4'],
    [{ full_attention: { rope_type: 'default' } }, 'full_attention is an object, but rotary embeddings per layer'],
  ];
  test.each(refused)('%j is refused', async (parameters, message) => {
    const action = () => tableOf({ rope_parameters: parameters });
    await expectEngineError(action, 'CONFIG_INVALID', `rope_parameters.${message}`);
  });
});

describe('rotation speeds from GGUF metadata', () => {
  const scaling = {
    'llama.rope.scaling.type': 'yarn',
    'llama.rope.scaling.factor': 4,
    'llama.rope.scaling.original_context_length': 4096,
  };

  test('without keys they are plain', () => {
    expectTable(ggufTableOf({}), plain, 1);
    expectTable(ggufTableOf({ 'llama.rope.dimension_count': 8 }), [1, 0.1, 0.01, 0.001], 1);
  });

  test('a factor alone is linear, by either key', () => {
    const slowed = plain.map((frequency) => frequency / 4);
    expectTable(ggufTableOf({ 'llama.rope.scaling.factor': 4 }), slowed, 1);
    expectTable(ggufTableOf({ 'llama.rope.scale_linear': 4 }), slowed, 1);
    expectTable(ggufTableOf({ 'llama.rope.scaling.factor': 0 }), plain, 1);
    expectTable(ggufTableOf({ 'llama.rope.scaling.factor': 4, 'llama.rope.scaling.type': 'none' }), plain, 1);
  });

  test('yarn is that of config.json', () => {
    expectTable(ggufTableOf(scaling), yarn, 1.138629436111989);
    expectTable(ggufTableOf({ ...scaling, 'llama.rope.scaling.yarn_attn_factor': 1.5 }), yarn, 1.5);
    expectTable(ggufTableOf({ ...scaling, 'llama.rope.scaling.attn_factor': 2 }), yarn, 2 * 1.138629436111989);
  });

  test('frequency factors divide', () => {
    const { rope } = readModelConfig(ggufSource());
    const table = ropeTable(rope!, [1, 2, 4, 8]);
    expect(table.inverseFrequencies).toEqual([1, 0.1 / 2, 0.01 / 4, 10000 ** -0.75 / 8]);
  });

  test.each([
    ['llama.rope.scaling.type', 'longrope', 'expected one of none, linear, yarn'],
    ['llama.rope.scaling.yarn_ext_factor', 0.5, 'supported: 1'],
    ['llama.rope.scaling.yarn_log_multiplier', 0.1, 'supported: 0'],
    ['llama.rope.dimension_count', 7, 'which is odd'],
    ['llama.rope.dimension_count', 18, 'from 2 to 16'],
    ['llama.rope.freq_base', Number.NaN, 'expected a finite number'],
  ])('%s = %s is refused', async (key, value, problem) => {
    await expectEngineError(() => ggufTableOf({ ...scaling, [key]: value }), 'CONFIG_INVALID', key, problem);
  });
});
