import type { DType } from '../tensor/dtype.js';
import type { PackedDType } from '../tensor/packed.js';
import type { KvDType } from './kv-dtype.js';
import type { Buffer } from './op.js';
import type { Plan } from './plan.js';

/**
 * The boundary. A backend turns a plan plus weights into a session, and a session does one thing: step(batch).
 * Ids cross in both directions; weights, activations and KV bytes do not.
 */
export interface Backend {
  /** Shown to users, with the instruction set where there is one: `reference`, `native-cpu:avx2`. */
  readonly name: string;
  /**
   * Prepares everything a step needs. Throws EngineError OUT_OF_MEMORY, FILE_UNREADABLE, FORMAT_INVALID (file changed
   * since its header was read), ABORTED.
   */
  load(plan: Plan, weights: WeightTable, limits: SessionLimits, signal?: AbortSignal): Promise<Session>;
}

/** Where the bytes of each of the plan's weights lie; entry i belongs to plan.weights[i]. */
export interface WeightTable {
  readonly entries: readonly WeightSource[];
  /** Every file named by an entry, as it was when its header was read. */
  readonly files: ReadonlyMap<string, { readonly size: number; readonly mtimeMs: number }>;
}

export interface WeightSource {
  readonly file: string;
  /** First byte of the matrix, from the start of the file. */
  readonly offset: number;
  readonly dtype: DType;
  readonly rows: number;
  readonly columns: number;
  /**
   * 0: stored as [rows, columns], rows contiguous. Otherwise the matrix is stored transposed (GPT-2's Conv1D,
   * unquantised types only), as a slice of a matrix whose rows have this many values: element (r, c) is value number
   * c · transposedStride + r after `offset`.
   */
  readonly transposedStride: number;
  /** What the matrix is quantised to while it is loaded; absent: it is used as it is stored. */
  readonly quantize?: PackedDType | undefined;
}

/** The type a weight has in memory. */
export function dtypeInMemory({ dtype, quantize }: Pick<WeightSource, 'dtype' | 'quantize'>): DType {
  return quantize ?? dtype;
}

/** Everything is allocated for these at load; a step never allocates. */
export interface SessionLimits {
  /** Tokens of one step over all sequences. */
  readonly maxTokens: number;
  /** Rows of one step whose logits are wanted. */
  readonly maxRows: number;
  readonly maxSequences: number;
  /** Longest sequence in tokens: positions are below it. */
  readonly contextSize: number;
  /** Tokens per KV block. */
  readonly blockSize: number;
  readonly numBlocks: number;
  readonly kvDtype: KvDType;
}

/** Compressed rows: entries of row r are offsets[r] … offsets[r + 1] − 1. */
export interface Csr {
  readonly offsets: Int32Array; // [numRows + 1]
  readonly ids: Int32Array; // token ids
  readonly values?: Float32Array; // parallel to ids, where the use needs them
}

/**
 * Ragged inputs of one step; the backend copies them before step() returns. Sequences are laid out one after another,
 * each with the tokens it catches up by, in ascending position.
 */
export interface Batch extends SamplingInputs {
  readonly tokenIds: Int32Array; // [numTokens]
  readonly positions: Int32Array; // [numTokens]
  readonly slotMapping: Int32Array; // [numTokens] KV slot (block · blockSize + offset) each token writes; −1 stores nothing
  readonly queryStart: Int32Array; // [numSeqs + 1] token range of each sequence
  readonly contextLens: Int32Array; // [numSeqs] tokens visible to the sequence's last query, itself included
  /** [numSeqs, maxBlocks] block ids in order of position; −1 where no layer's sliding window reaches any more. */
  readonly blockTables: Int32Array;
  /**
   * Forward passes of this call, at most the session's maxSteps; default 1. With more, each step computes the tokens that
   * the one before it sampled, at the next positions, exactly as further calls would. Then every sequence has one token
   * and one row, which samples, in order of the sequences; block tables hold blocks for all positions; there is neither
   * history nor mask; logits and hidden states cannot be wanted. A row that has nothing to sample from ends there: its
   * later tokens are −1 too.
   */
  readonly numSteps?: number;
}

/** What sampling one set of rows needs, besides their logits. */
export interface SamplingInputs {
  /** [numRows, SAMPLING_WORDS], see sampling.ts. Rows are in ascending order of their token row. */
  readonly sampling: Int32Array;
  /** Per row: token ids for penalties, the prompt's first, then the generated ones. */
  readonly history?: Csr;
  /** Per row: (token id, added to its logit); −Infinity bans. */
  readonly bias?: Csr;
  /** [numRows, ceil(vocabSize / 32)] bit t of word w allows token 32 · w + t. */
  readonly mask?: Int32Array;
}

/** Sizes of results that are only made when asked for. */
export interface Want {
  /** Copy out the logits of all rows. */
  readonly logits?: boolean;
  /**
   * Copy out what the head reads, for all rows: the last norm's output. A step that samples nothing and wants no logits
   * then leaves the head out.
   */
  readonly hidden?: boolean;
}

export interface StepResult {
  /** [numSteps, numRows] sampled token; −1 where the row's flags ask for none. */
  readonly tokens: Int32Array;
  /** [numSteps, numRows] log-probability of the sampled token under the unmodified distribution; NaN where not asked. */
  readonly logprobs: Float32Array;
  /** [numSteps, numRows, numTop] most likely tokens in descending order, −1 where a row asked for fewer; numTop = most any row asked for. */
  readonly topIds: Int32Array;
  readonly topLogprobs: Float32Array;
  /** [numRows, vocabSize], only with want.logits. */
  readonly logits?: Float32Array;
  /** [numRows, hiddenSize], only with want.hidden. */
  readonly hidden?: Float32Array;
}

export interface Session {
  /** Forward passes that one call of step() can do without the host in between. */
  readonly maxSteps: number;
  /**
   * One forward pass over one batch, sampling included, or batch.numSteps of them. One call at a time; a second one while
   * one runs waits its turn.
   */
  step(batch: Batch, want?: Want): Promise<StepResult>;
  /**
   * Copies keys and values of whole blocks, in all layers: pairs of block ids [numPairs, 2], from and to. In order with
   * the steps around it.
   */
  copyBlocks(pairs: Int32Array): Promise<void>;
  /**
   * Writes keys and values of these blocks, in all layers, into a new file with a label and a checksum; an existing file
   * is replaced in one go. In order with the steps around it. Throws FILE_UNWRITABLE.
   */
  saveBlocks(path: string, blocks: Int32Array, label: Uint8Array): Promise<void>;
  /**
   * Reads what saveBlocks wrote into these blocks. Throws FILE_UNREADABLE, and PROMPT_CACHE_INVALID when the file is
   * damaged, has another label, another number of blocks, or blocks of another size; then the blocks hold nothing useful.
   */
  loadBlocks(path: string, blocks: Int32Array, label: Uint8Array): Promise<void>;
  /** The sampling op alone on logits [numRows, vocabSize]; records' row fields index these rows, positions[row] is as in a batch. */
  sample(logits: Float32Array, positions: Int32Array, inputs: SamplingInputs): StepResult;
  /** A copy of a buffer as the last step left it, [rows of that step, width]; tests and debugging only. */
  read(buffer: Buffer): Promise<Float32Array>;
  /**
   * Frees everything, after the step in flight, which a backend may cut short: it then rejects with DISPOSED, like later
   * calls. A second dispose does nothing.
   */
  dispose(): Promise<void>;
}
