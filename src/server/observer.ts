import type { Outcome } from '../serving/completer.js';

/** What answers by running the model, by the names of OpenTelemetry's GenAI conventions. */
export const modelOperations = ['chat', 'text_completion', 'embeddings'] as const;
export type ModelOperation = (typeof modelOperations)[number];
/** The others are about tokens and texts only. */
export type Operation = ModelOperation | 'tokenize' | 'detokenize' | 'apply_template';

/** Who asked for what. Never holds a prompt. */
export interface RequestStart {
  readonly requestId: string;
  readonly operation: Operation;
  readonly model: string;
  readonly stream: boolean;
  /** Sampling parameters as the client gave them. */
  readonly parameters: Readonly<Record<string, number | undefined>>;
  /** The request's headers, which may say what trace it belongs to (traceparent, baggage). */
  readonly traceHeaders?: Readonly<Record<string, string | readonly string[] | undefined>>;
}

export interface RequestEnd {
  /** HTTP status of the answer; 499 when the client went away first. */
  readonly status: number;
  /** One for each finished answer. */
  readonly outcomes: readonly Outcome[];
  readonly promptTokens: number;
  /** What went wrong, if anything did. */
  readonly error?: unknown;
}

/** One request's life, as metrics, traces and logs see it. */
export interface RequestObservation {
  /** New tokens of answer `index` have arrived. */
  tokens(index: number, count: number): void;
  /** Called once, whatever happened. */
  end(end: RequestEnd): void;
}

/** Is told about every request; several observers may listen. */
export interface RequestObserver {
  begin(start: RequestStart): RequestObservation;
}
