/** Tokens: what steps are counted by. vLLM's bounds (vllm/v1/metrics/loggers.py). */
export const stepTokenBounds = [1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384] as const;

/** What an engine loop is doing, and has done since it was made. */
export interface EngineStats {
  /** Sequences that own blocks. */
  readonly running: number;
  /** Sequences that wait for their first step, or for another after they were preempted. */
  readonly waiting: number;
  readonly blocks: {
    readonly total: number;
    /** Owned by running sequences. */
    readonly used: number;
    /** Kept for prompts that may come again; free for whoever needs them. */
    readonly cached: number;
  };
  readonly prefixCache: {
    /** Prompt tokens looked up, and how many of them were found. */
    readonly queriedTokens: number;
    readonly hitTokens: number;
    readonly evictedBlocks: number;
  };
  readonly steps: number;
  /** [stepTokenBounds.length + 1] Steps by the first bound that their tokens do not exceed; the last has those beyond. */
  readonly stepsByTokens: readonly number[];
  /** Null while steps succeed; else how many have failed since the last that did, by no fault of a request. */
  readonly failing: { readonly steps: number; readonly lastError: unknown } | null;
  /** Tokens computed in all steps: of prompts, of answers, and again after a preemption. */
  readonly computedTokens: number;
  readonly generatedTokens: number;
  readonly preemptions: number;
}
