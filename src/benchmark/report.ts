import { describeCommit, describeMachine, type Machine } from './machine.js';
import type { Summary } from './statistics.js';

/** What a file holds after `engine bench … --json FILE`; its names are a promise. */
export interface BenchReport {
  readonly machine: Machine;
  readonly commit: string | null;
  readonly command: string;
  readonly model: BenchModel;
  readonly rows: readonly BenchRow[];
}

export interface BenchModel {
  readonly name: string;
  readonly architecture: string;
  readonly parameters: number;
  /** Of all weights as they are stored. */
  readonly bytes: number;
}

/** One thing that was measured. Absent fields were not measured. */
export interface BenchRow {
  readonly name: string;
  /** What ran it: `native-cpu:avx2`, `llama.cpp`. */
  readonly backend: string;
  /** Storage types of the matrices, the one with most bytes first. */
  readonly dtype: string;
  readonly threads?: number;
  /** Busy loops of other processes beside it. */
  readonly neighbours?: number;
  /** Sequences at once. */
  readonly batch: number;
  /** Of each sequence. */
  readonly prompt_tokens: number;
  readonly generated_tokens: number;
  /** Over all sequences together. */
  readonly tokens_per_second: Summary;
  /** Weights and keys and values that one token makes the machine read. */
  readonly bytes_per_token?: number;
  readonly gb_per_second?: number;
  readonly peak_gb_per_second?: number;
  readonly percent_of_peak?: number;
  /** Of a GPU, by the clock of its memory and the width of its bus. */
  readonly datasheet_gb_per_second?: number;
  readonly percent_of_datasheet?: number;
  readonly gop_per_second?: number;
  readonly peak_gop_per_second?: number;
  readonly percent_of_peak_compute?: number;
  readonly quality?: Quality;
  /** Ours to the opponent's tokens per second, one ratio a round. */
  readonly ratio?: Summary;
  /** Greedy tokens that were the opponent's too before the first difference, of so many. */
  readonly equal_leading_tokens?: number;
  readonly compared_tokens?: number;
}

export interface Quality {
  readonly perplexity: number;
  /** KL divergence from the most exact run, in nats a token. */
  readonly kl_mean: number;
  readonly kl_p99: number;
  readonly top1_agreement: number;
}

/** @param command as the user wrote it */
export function makeReport(command: string, model: BenchModel, rows: readonly BenchRow[]): BenchReport {
  return { machine: describeMachine(), commit: describeCommit(), command, model, rows };
}
