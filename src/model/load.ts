import type { WeightTable } from '../backend/backend.js';
import type { Activations } from '../backend/op.js';
import { type Plan, PlanBuilder } from '../backend/plan.js';
import { EngineError } from '../base/errors.js';
import type { ModelSource } from '../formats/hub.js';
import { readTensorBytes } from '../formats/tensor-bytes.js';
import type { ModelConfig } from './config.js';
import { ConfigReader } from './config-reader.js';
import { familyOf } from './families.js';
import type { Family } from './family.js';
import { LayerRecorder } from './layers.js';
import type { QuantisedTypes } from './quantised-types.js';
import { ropeTable } from './rope.js';
import { WeightBinder } from './weights.js';

export interface LoadedModel {
  readonly config: ModelConfig;
  readonly plan: Plan;
  readonly weights: WeightTable;
}

export interface ModelOptions {
  /** How linears with quantised weights treat their input; those with float weights are always exact. */
  readonly activations: Activations;
  /** false keeps every buffer alive to the end of a step, so that tests can read all of them. Default true. */
  readonly reuseBuffers?: boolean;
  /** What matrices are quantised to while they are loaded; default: nothing, they are used as they are stored. */
  readonly quantise?: QuantisedTypes | undefined;
}

/**
 * Checks a model's configuration and tensors, and records its forward pass. Weights are not read.
 *
 * Throws ARCHITECTURE_UNSUPPORTED, CONFIG_INVALID, TENSOR_MISSING, TENSOR_SHAPE, TENSOR_UNEXPECTED, DTYPE_UNSUPPORTED.
 */
export function loadModel(source: ModelSource, options: ModelOptions): LoadedModel {
  const { family, config } = configure(source);
  const plan = new PlanBuilder();
  const binder = new WeightBinder(plan, source, config, family.names, options.quantise);
  const layers = new LayerRecorder(config, plan, binder, {
    activations: options.activations,
    rope: config.rope && plan.ropeTable(ropeTable(config.rope, readFrequencyFactors(source, config.rope.rotaryDim))),
    interleaved: family.interleavedInGguf && source.format === 'gguf',
  });
  const logits = family.forward(layers);
  const weights = binder.finish();
  return { config, plan: plan.finish(logits, { reuse: options.reuseBuffers ?? true }), weights };
}

/** The configuration alone. Throws ARCHITECTURE_UNSUPPORTED and CONFIG_INVALID. */
export function readModelConfig(source: ModelSource): ModelConfig {
  return configure(source).config;
}

function configure(source: ModelSource): { family: Family; config: ModelConfig } {
  const { family, architecture } = familyOf(source);
  const reader = new ConfigReader(source, architecture);
  const quantization = 'quantization_config';
  if (source.format === 'safetensors' && reader.fields.has(quantization)) {
    const problem = 'but quantised safetensors are not supported; use the original weights, or a GGUF file';
    throw reader.fields.invalid(quantization, reader.fields.raw(quantization), problem);
  }
  return { family, config: Object.freeze(family.readConfig(reader)) };
}

/** Llama 3.1's rope scaling as llama.cpp's converter writes it: one divisor per rotated pair. */
function readFrequencyFactors(source: ModelSource, rotaryDim: number): Float32Array | null {
  const name = 'rope_freqs.weight';
  const tensor = source.format === 'gguf' ? source.tensors.get(name) : undefined;
  if (tensor === undefined) return null;
  const { shape, dtype } = tensor;
  if (shape.length !== 1 || shape[0] !== rotaryDim / 2) {
    throw new EngineError('TENSOR_SHAPE', { tensor: name, shape, expected: [rotaryDim / 2] });
  }
  if (dtype !== 'f32') throw new EngineError('DTYPE_UNSUPPORTED', { tensor: name, dtype, supported: 'f32' });
  const bytes = readTensorBytes(tensor, source.files);
  const factors = new Float32Array(bytes.buffer, bytes.byteOffset, rotaryDim / 2);
  const bad = factors.find((factor) => !(factor > 0 && Number.isFinite(factor)));
  if (bad === undefined) return factors;
  const problem = 'expected finite numbers above 0';
  throw new EngineError('FORMAT_INVALID', { path: source.path, field: `tensor ${name}`, value: bad, problem });
}
