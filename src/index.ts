/** The public API of engine-ts, nothing else. */
export { EngineError, type ErrorCode } from './base/errors.js';
export type { EngineStats } from './engine/engine-stats.js';
export type { SamplingOptions } from './engine/sampler.js';
export type { FinishReason } from './engine/sequence.js';
export type { EvaluationOptions, EvaluationProgress } from './evaluation/evaluation.js';
export { evaluateKl, type KlDivergence } from './evaluation/kl.js';
export { evaluatePerplexity, type Perplexity } from './evaluation/perplexity.js';
export type { SavedEvaluation } from './evaluation/saved-evaluation.js';
export { Engine, type ModelInfo } from './library/engine.js';
export type { LoadOptions } from './library/load-options.js';
export type {
  Completion,
  CompletionEvent,
  CompletionRequest,
  Outcome,
  Timings,
  TokenLogprob,
  TokenLogprobs,
  Usage,
} from './serving/completer.js';
export type { EmbeddingRequest, Embeddings, Pooling } from './serving/embedder.js';
export type { ChatMessage, ChatTemplate, RenderOptions } from './tokenizer/chat-template.js';
export type { Tokenizer } from './tokenizer/tokenizer.js';
