/** Sizes of a Llama model (names as in config.json). */
export interface LlamaShape {
  readonly hiddenSize: number;
  readonly intermediateSize: number;
  readonly numLayers: number;
  readonly numHeads: number;
  readonly numKvHeads: number;
  readonly headDim: number;
  readonly vocabSize: number;
  readonly contextLength: number;
  readonly ropeTheta: number;
  /** The output matrix is the embedding. */
  readonly tied: boolean;
  /** SentencePiece's spelling, as of Llama 1 and 2, or bytes with merges, as of Llama 3. */
  readonly vocabulary: 'sentencepiece' | 'bytes';
}

const llama2 = { vocabSize: 32_000, ropeTheta: 10_000, tied: false, vocabulary: 'sentencepiece' } as const;
const llama3 = { vocabSize: 128_256, ropeTheta: 500_000, contextLength: 131_072, vocabulary: 'bytes' } as const;

/** Sizes of published models. The first two are llama2.c's stories15M and stories110M, with a head of their own. */
export const llamaShapes = {
  '15m': {
    ...llama2,
    hiddenSize: 288,
    intermediateSize: 768,
    numLayers: 6,
    numHeads: 6,
    numKvHeads: 6,
    headDim: 48,
    contextLength: 256,
  },
  '110m': {
    ...llama2,
    hiddenSize: 768,
    intermediateSize: 2048,
    numLayers: 12,
    numHeads: 12,
    numKvHeads: 12,
    headDim: 64,
    contextLength: 1024,
  },
  'tinyllama-1.1b': {
    ...llama2,
    hiddenSize: 2048,
    intermediateSize: 5632,
    numLayers: 22,
    numHeads: 32,
    numKvHeads: 4,
    headDim: 64,
    contextLength: 2048,
  },
  'llama-3.2-1b': {
    ...llama3,
    hiddenSize: 2048,
    intermediateSize: 8192,
    numLayers: 16,
    numHeads: 32,
    numKvHeads: 8,
    headDim: 64,
    tied: true,
  },
  'llama-2-7b': {
    ...llama2,
    hiddenSize: 4096,
    intermediateSize: 11_008,
    numLayers: 32,
    numHeads: 32,
    numKvHeads: 32,
    headDim: 128,
    contextLength: 4096,
  },
  'llama-3.1-8b': {
    ...llama3,
    hiddenSize: 4096,
    intermediateSize: 14_336,
    numLayers: 32,
    numHeads: 32,
    numKvHeads: 8,
    headDim: 128,
    tied: false,
  },
} as const satisfies Record<string, LlamaShape>;

export type ShapeName = keyof typeof llamaShapes;

export const shapeNames = Object.keys(llamaShapes) as ShapeName[];
