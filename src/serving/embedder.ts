/** How the vectors of a text's tokens become one: their mean, or the last token's. */
export type Pooling = 'mean' | 'last';

/** A request for vectors. */
export interface EmbeddingRequest {
  /** Texts, or token ids used as they are. At least one, at most 2,048. */
  readonly inputs: readonly (string | ArrayLike<number>)[];
  /** Default `mean`. */
  readonly pooling?: Pooling | undefined;
  /** Keep this many of the first dimensions, then normalise again. Default: all of them. */
  readonly dimensions?: number | undefined;
  readonly tenant?: string | undefined;
  /** Rejects with ABORTED; memory is free within one step. */
  readonly signal?: AbortSignal | undefined;
}

export interface Embeddings {
  /** One for each input, L2-normalised, [hiddenSize] or [dimensions]. */
  readonly vectors: readonly Float32Array[];
  readonly promptTokens: number;
}

/** Texts in, vectors out. */
export interface Embedder {
  embed(request: EmbeddingRequest): Promise<Embeddings>;
}
