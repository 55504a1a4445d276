/** What is asked for. */
export interface PlannedRequest {
  readonly promptIds: readonly number[];
  readonly outputTokens: number;
  /** When it arrives, in milliseconds from the start; null: as soon as there is room. */
  readonly atMs: number | null;
}

/** What became of a request, as its client saw it. Times in milliseconds. */
export interface RequestRecord {
  /** On the clock of performance.now(): when it was sent, or had to be by its arrival. */
  readonly startMs: number;
  /** To the first token; null without streaming, or if there was none. */
  readonly ttftMs: number | null;
  /** Between events that bring tokens. */
  readonly gapsMs: readonly number[];
  /** To the end of the answer. */
  readonly e2eMs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** Null if it was answered, with as many tokens as it asked for. */
  readonly error: string | null;
}
