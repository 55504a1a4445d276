import { EngineError } from '../../src/base/errors.js';
import type { EvaluatedModel } from '../../src/evaluation/text.js';

/** Logits after a token, by its id: the model looks at nothing else. */
export type Rows = (id: number) => ArrayLike<number>;

/** A model of `vocabSize` tokens without a tokenizer, whose logits are known. Records what it was given. */
export class FakeModel implements EvaluatedModel {
  readonly inputs: number[][] = [];
  readonly model;

  constructor(
    readonly vocabSize: number,
    readonly rows: Rows,
    readonly contextSize = 64,
    name = 'fake',
  ) {
    this.model = { name, path: `/${name}`, architecture: 'fake', vocabSize, contextLength: contextSize };
  }

  get tokenizer(): never {
    throw new EngineError('TOKENIZER_MISSING', { path: this.model.path });
  }

  async logits(tokenIds: ArrayLike<number>, options: { readonly signal?: AbortSignal } = {}): Promise<Float32Array> {
    if (options.signal?.aborted) throw new EngineError('ABORTED', {});
    const ids = Array.from(tokenIds);
    this.inputs.push(ids);
    const logits = new Float32Array(ids.length * this.vocabSize);
    ids.forEach((id, i) => {
      logits.set(this.rows(id), i * this.vocabSize);
    });
    return logits;
  }
}
