import { dtypeInMemory } from '../backend/backend.js';
import type { Activations, Buffer, Weight } from '../backend/op.js';
import type { PlanBuilder } from '../backend/plan.js';
import { isQuantised } from '../tensor/dtype.js';
import type { ModelConfig } from './config.js';
import type { Role } from './names.js';
import { hasBias } from './shapes.js';
import type { WeightBinder } from './weights.js';

export interface LayerOptions {
  /** Of linears whose weights are stored in a type that can meet 8-bit activations; all others are exact. */
  readonly activations: Activations;
  /** The plan's rope table; null where positions are learned. */
  readonly rope: number | null;
  /** Rotated pairs are neighbours: (2i, 2i + 1) instead of (i, i + rotaryDim / 2). */
  readonly interleaved: boolean;
}

/**
 * Records the layers that families are made of. A role names the weights; their shapes follow from the configuration.
 * Widths of buffers are in brackets; each has one row per token, and after `selectRows` one per row of logits.
 */
export class LayerRecorder {
  constructor(
    readonly config: ModelConfig,
    private readonly plan: PlanBuilder,
    private readonly weights: WeightBinder,
    private readonly options: LayerOptions,
  ) {}

  /** The residual stream [hiddenSize]: the tokens' embeddings. */
  embedding(): Buffer {
    return this.plan.embed(this.weights.matrix('embedding'));
  }

  /** x += the learned embeddings of the tokens' positions. */
  addPositions(x: Buffer): void {
    this.plan.addPositions(x, this.weights.matrix('positions'));
  }

  rmsNorm(x: Buffer, role: Role, layer?: number): Buffer {
    return this.plan.rmsNorm(x, this.weights.vector(role, layer), this.config.normEps);
  }

  layerNorm(x: Buffer, role: Role, layer?: number): Buffer {
    const weight = this.weights.vector(role, layer);
    return this.plan.layerNorm(x, weight, this.weights.normBias(role, layer), this.config.normEps);
  }

  linear(x: Buffer, role: Role, layer: number): Buffer {
    const weight = this.weights.matrix(role, layer);
    const bias = hasBias(this.config, role) ? this.weights.bias(role, layer) : null;
    return this.#linear(x, weight, bias);
  }

  /** Turns queries and keys by their positions (arXiv 2104.09864), in place. */
  rotate(q: Buffer, k: Buffer): void {
    const { rope, interleaved } = this.options;
    if (rope === null) return;
    this.plan.rope(q, this.config.headDim, rope, interleaved);
    this.plan.rope(k, this.config.headDim, rope, interleaved);
  }

  /**
   * Causal attention of queries q [numHeads · headDim] over the sequence's keys and values, which k and v
   * [numKvHeads · headDim] join first. Returns the heads [numHeads · headDim], before their output projection.
   */
  attention(q: Buffer, k: Buffer, v: Buffer, layer: number): Buffer {
    const { numKvHeads, headDim, slidingWindows } = this.config;
    const kvLayer = this.plan.kvLayer({ numKvHeads, headDim });
    this.plan.writeKv(k, v, kvLayer);
    return this.plan.attention(q, kvLayer, { scale: 1 / Math.sqrt(headDim), window: slidingWindows[layer]! });
  }

  /** down(silu(gate(x)) · up(x)) [hiddenSize]; arXiv 2002.05202 */
  swiGlu(x: Buffer, layer: number): Buffer {
    const gate = this.linear(x, 'gate', layer); // [intermediateSize]
    const up = this.linear(x, 'up', layer); // [intermediateSize]
    return this.linear(this.plan.siluMul(gate, up), 'down', layer);
  }

  /** down(gelu(up(x))) [hiddenSize] */
  geluMlp(x: Buffer, layer: number): Buffer {
    const up = this.linear(x, 'up', layer); // [intermediateSize]
    return this.linear(this.plan.gelu(up, this.config.activation === 'gelu_tanh'), 'down', layer);
  }

  /** x += y */
  add(x: Buffer, y: Buffer): void {
    this.plan.add(x, y);
  }

  /** Only the rows whose logits are wanted. */
  selectRows(x: Buffer): Buffer {
    return this.plan.selectRows(x);
  }

  /** Logits [vocabSize]. */
  head(x: Buffer): Buffer {
    return this.#linear(x, this.weights.matrix(this.config.tieWordEmbeddings ? 'embedding' : 'head'), null);
  }

  #linear(x: Buffer, weight: Weight, bias: Weight | null): Buffer {
    const source = this.weights.sourceOf(weight);
    // A single row counts as a vector, and vectors are float32 in memory.
    const meetsIntegers = isQuantised(dtypeInMemory(source)) && source.rows > 1;
    return this.plan.linear(x, weight, bias, meetsIntegers ? this.options.activations : 'f32');
  }
}
