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
  /** Tokens computed in all steps: of prompts, of answers, and again after a preemption. */
  readonly computedTokens: number;
  readonly generatedTokens: number;
  readonly preemptions: number;
}
