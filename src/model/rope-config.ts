import type { Fields } from '../formats/fields.js';
import type { ConfigReader } from './config-reader.js';
import { type RopeConfig, type RopeScaling, yarnAttentionFactor } from './rope.js';

const THETA = { min: 1.5, max: 1e15 };
const FACTOR = { min: 1e-3, max: 1e6 };
const ROTATIONS = { min: 1e-3, max: 1e6 };
const CONTEXT = { min: 1, max: 1 << 28 };
const DEFAULT_THETA = 10_000;

/** The rotary embedding of either format. Throws CONFIG_INVALID, also for variants that are not supported. */
export function readRope(reader: ConfigReader, headDim: number, contextLength: number): RopeConfig {
  if (reader.format === 'gguf') return readGguf(reader, headDim, contextLength);
  return readJson(reader.fields, headDim, contextLength);
}

/**
 * config.json: `rope_parameters` holds everything since transformers 5; before, `rope_theta` and `partial_rotary_factor`
 * stand by themselves, and the rest in `rope_scaling`, with `type` for `rope_type`.
 */
function readJson(fields: Fields, headDim: number, contextLength: number): RopeConfig {
  const nested = fields.optionalChild('rope_parameters') ?? fields.optionalChild('rope_scaling');
  const perLayerType = nested
    ?.keys()
    .find((key) => typeof nested.raw(key) === 'object' && nested.has(key) && !nested.isList(key));
  if (perLayerType !== undefined) {
    throw nested!.invalid(perLayerType, nested!.raw(perLayerType), 'but rotary embeddings per layer are not supported');
  }
  const either = (key: string) => (nested?.has(key) ? nested : fields);
  const partial = either('partial_rotary_factor').optionalFloat('partial_rotary_factor', { min: 0, max: 1 }) ?? 1;
  const rotaryDim = Math.floor(headDim * partial);
  if (rotaryDim < 2 || rotaryDim % 2 !== 0) {
    const problem = `but ${rotaryDim} of ${headDim} values per head cannot be rotated in pairs`;
    throw either('partial_rotary_factor').invalid('partial_rotary_factor', partial, problem);
  }
  const ropeTheta = either('rope_theta').optionalFloat('rope_theta', THETA) ?? DEFAULT_THETA;
  if (nested === null) return { ropeTheta, rotaryDim, scaling: { type: 'default' }, attentionFactor: 1 };

  const typeKey = nested.has('rope_type') ? 'rope_type' : 'type';
  const type = nested.optionalString(typeKey) ?? 'default';
  const read = Object.hasOwn(scalings, type) ? scalings[type] : undefined;
  if (read === undefined) {
    throw nested.invalid(typeKey, type, `which is not supported; supported: ${Object.keys(scalings).join(', ')}`);
  }
  const original = 'original_max_position_embeddings';
  const originalContextLength =
    fields.optionalUint(original, CONTEXT) ?? nested.optionalUint(original, CONTEXT) ?? contextLength;
  const scaling = read(nested, originalContextLength, contextLength);
  const attentionFactor = scaling.type === 'yarn' ? readAttentionFactor(nested, scaling.factor) : 1;
  return { ropeTheta, rotaryDim, scaling, attentionFactor };
}

type ReadScaling = (fields: Fields, originalContextLength: number, contextLength: number) => RopeScaling;

/** By `rope_type`; parameters and defaults are those of transformers. */
const scalings: Readonly<Record<string, ReadScaling>> = {
  default: () => ({ type: 'default' }),
  linear: (fields) => ({ type: 'linear', factor: fields.float('factor', FACTOR) }),
  // Scales only sequences longer than max_position_embeddings, and none is: that is the longest context size.
  dynamic: () => ({ type: 'default' }),
  llama3(fields, originalContextLength) {
    const lowFreqFactor = fields.float('low_freq_factor', ROTATIONS);
    const highFreqFactor = fields.float('high_freq_factor', ROTATIONS);
    if (highFreqFactor <= lowFreqFactor) {
      throw fields.invalid('high_freq_factor', highFreqFactor, `expected more than low_freq_factor, ${lowFreqFactor}`);
    }
    const factor = fields.float('factor', FACTOR);
    return { type: 'llama3', factor, lowFreqFactor, highFreqFactor, originalContextLength };
  },
  yarn: (fields, originalContextLength, contextLength) => ({
    type: 'yarn',
    factor: fields.optionalFloat('factor', FACTOR) ?? contextLength / originalContextLength,
    betaFast: fields.optionalFloat('beta_fast', ROTATIONS) ?? 32,
    betaSlow: fields.optionalFloat('beta_slow', ROTATIONS) ?? 1,
    truncate: fields.optionalBoolean('truncate') ?? true,
    originalContextLength,
  }),
};

function readAttentionFactor(fields: Fields, factor: number): number {
  const given = fields.optionalFloat('attention_factor', FACTOR);
  if (given !== null) return given;
  const mscale = fields.optionalFloat('mscale', { min: 0, max: 1e3 });
  const mscaleAllDim = fields.optionalFloat('mscale_all_dim', { min: 0, max: 1e3 });
  // Zero means not given, as in Python.
  if (!mscale || !mscaleAllDim) return yarnAttentionFactor(factor);
  return yarnAttentionFactor(factor, mscale) / yarnAttentionFactor(factor, mscaleAllDim);
}

/** GGUF metadata, with the defaults of llama.cpp. */
function readGguf(reader: ConfigReader, headDim: number, contextLength: number): RopeConfig {
  const { fields } = reader;
  const key = (suffix: string) => reader.key(`rope.${suffix}`);
  const dimensionCount = key('dimension_count');
  const rotaryDim = fields.optionalUint(dimensionCount, { min: 2, max: headDim }) ?? headDim;
  if (rotaryDim % 2 !== 0) throw fields.invalid(dimensionCount, rotaryDim, 'which is odd; values are rotated in pairs');
  // Both would change every angle, and no supported family is converted with them.
  reader.refuseUnless('gguf', { 'rope.scaling.yarn_log_multiplier': 0, 'rope.scaling.yarn_ext_factor': 1 });

  const ropeTheta = fields.optionalFloat(key('freq_base'), THETA) ?? DEFAULT_THETA;
  const type = fields.optionalOneOf(key('scaling.type'), ['none', 'linear', 'yarn']) ?? 'linear';
  const factorKey = key(fields.has(key('scaling.factor')) ? 'scaling.factor' : 'scale_linear');
  // Zero and absent both mean none.
  const factor = fields.optionalFloat(factorKey, { min: 0, max: FACTOR.max }) || 1;
  const attentionFactor = fields.optionalFloat(key('scaling.attn_factor'), FACTOR) ?? 1;
  if (type !== 'yarn') {
    const scaling: RopeScaling = type === 'linear' && factor !== 1 ? { type, factor } : { type: 'default' };
    return { ropeTheta, rotaryDim, scaling, attentionFactor };
  }
  const scaling: RopeScaling = {
    type,
    factor,
    betaFast: fields.optionalFloat(key('scaling.yarn_beta_fast'), ROTATIONS) ?? 32,
    betaSlow: fields.optionalFloat(key('scaling.yarn_beta_slow'), ROTATIONS) ?? 1,
    truncate: true,
    originalContextLength: fields.optionalUint(key('scaling.original_context_length'), CONTEXT) ?? contextLength,
  };
  const yarnFactor = fields.optionalFloat(key('scaling.yarn_attn_factor'), FACTOR) ?? yarnAttentionFactor(factor);
  return { ropeTheta, rotaryDim, scaling, attentionFactor: attentionFactor * yarnFactor };
}
