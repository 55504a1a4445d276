import { EngineError } from '../../base/errors.js';
import { withFile } from '../../formats/byte-source.js';

/** A request of a recorded workload. */
export interface TraceRequest {
  /** Milliseconds since the first one. */
  readonly atMs: number;
  readonly promptTokens: number;
  readonly outputTokens: number;
  /** Names of the prompt's blocks of 512 tokens: prompts begin alike as far as these are the same. Null: unknown. */
  readonly blocks: readonly number[] | null;
}

/** Tokens that a hash id of Mooncake's traces stands for (Qin et al.: Mooncake, FAST 2025). */
export const TRACE_BLOCK = 512;

const MAX_BYTES = 1 << 28;
const MAX_REQUESTS = 1_000_000;
/** Of a prompt or an answer. */
const MAX_TOKENS = 10_000_000;

/**
 * Reads Azure's LLM traces (CSV: TIMESTAMP, ContextTokens, GeneratedTokens) and Mooncake's (a JSON object a line:
 * timestamp in ms, input_length, output_length, hash_ids), in order of arrival.
 *
 * Throws FILE_NOT_FOUND, FILE_UNREADABLE, FORMAT_LIMIT, and FORMAT_INVALID with the line.
 */
export function readTrace(path: string): TraceRequest[] {
  const text = withFile(path, 'trace', (file) => {
    if (file.size > MAX_BYTES) throw overLimit(path, 'file size', file.size, MAX_BYTES);
    const bytes = new Uint8Array(file.size);
    file.read(bytes, 0);
    return new TextDecoder().decode(bytes);
  });
  const lines = text.split('\n').map((line) => line.trim());
  const isCsv = lines[0]?.startsWith('TIMESTAMP') ?? false;
  const requests: TraceRequest[] = [];
  for (const [index, line] of lines.entries()) {
    if (line === '' || (isCsv && index === 0)) continue;
    if (requests.length === MAX_REQUESTS) throw overLimit(path, 'requests', requests.length + 1, MAX_REQUESTS);
    const request = isCsv ? fromCsv(line) : fromJson(line);
    if (!isValid(request)) {
      const problem = isCsv ? 'not a time and two numbers of tokens' : 'not a request with timestamp and lengths';
      throw new EngineError('FORMAT_INVALID', { path, field: `line ${index + 1}`, value: line, problem });
    }
    requests.push(request);
  }
  if (requests.length === 0) {
    const problem = 'not a trace with requests';
    throw new EngineError('FORMAT_INVALID', { path, field: 'line 1', value: lines[0], problem });
  }
  const first = requests.reduce((earliest, { atMs }) => Math.min(earliest, atMs), Number.POSITIVE_INFINITY);
  return requests.map((request) => ({ ...request, atMs: request.atMs - first })).sort((a, b) => a.atMs - b.atMs);
}

function fromCsv(line: string): TraceRequest {
  const [time = '', context, generated] = line.split(',');
  // 2023-11-16 18:17:03.9799600: a space for the T, and more digits than a Date reads.
  const [, date, clock, fraction = ''] = /^(\d{4}-\d\d-\d\d)[ T](\d\d:\d\d:\d\d)(\.\d+)?/.exec(time) ?? [];
  const atMs = Date.parse(`${date}T${clock}Z`) + 1000 * Number(fraction || 0);
  return { atMs, promptTokens: count(context), outputTokens: count(generated), blocks: null };
}

function fromJson(line: string): TraceRequest | null {
  try {
    const { timestamp, input_length, output_length, hash_ids } = Object(JSON.parse(line)) as Record<string, unknown>;
    return {
      atMs: timestamp as number,
      promptTokens: input_length as number,
      outputTokens: output_length as number,
      blocks: (hash_ids as number[] | undefined) ?? null,
    };
  } catch {
    return null;
  }
}

/** A cell of CSV; NaN if it is empty. */
function count(cell: string | undefined): number {
  return cell === undefined || cell.trim() === '' ? Number.NaN : Number(cell);
}

function isValid(request: TraceRequest | null): request is TraceRequest {
  if (request === null) return false;
  const { atMs, promptTokens, outputTokens, blocks } = request;
  const isCount = (value: unknown) =>
    Number.isInteger(value) && (value as number) >= 0 && (value as number) <= MAX_TOKENS;
  const isBlockList = blocks === null || (Array.isArray(blocks) && blocks.every(Number.isSafeInteger));
  return Number.isFinite(atMs) && isCount(promptTokens) && isCount(outputTokens) && isBlockList;
}

function overLimit(path: string, field: string, value: number, limit: number): EngineError {
  return new EngineError('FORMAT_LIMIT', { path, field, value, limit });
}
