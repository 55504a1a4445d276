import { createReadStream } from 'node:fs';
import { EngineError } from '../base/errors.js';

/** Bytes; far beyond any context, and it keeps a wrong file from filling the memory. */
const MAX_PROMPT_BYTES = 64 * 1024 * 1024;

export interface PromptSources {
  readonly argument?: string | undefined;
  readonly prompt?: string | undefined;
  readonly promptFile?: string | undefined;
}

/**
 * The prompt from the one source that was given: argument, --prompt, --prompt-file, `-` or piped stdin. One line break
 * at the end of a file or of stdin is not part of the prompt. Throws OPTION_INVALID, FILE_UNREADABLE, TEXT_INVALID.
 */
export async function readPrompt({ argument, prompt, promptFile }: PromptSources): Promise<string> {
  const given = [argument, prompt, promptFile].filter((source) => source !== undefined);
  if (given.length > 1) {
    const expected = 'only one of argument, --prompt and --prompt-file';
    throw new EngineError('OPTION_INVALID', { option: '--prompt', value: given[1], expected });
  }
  if (promptFile !== undefined && promptFile !== '-') return text(await fileBytes(promptFile), promptFile);
  const literal = argument ?? prompt;
  if (literal !== undefined && literal !== '-') return literal;
  if (literal === undefined && promptFile === undefined && process.stdin.isTTY) {
    throw new EngineError('PROMPT_EMPTY', {});
  }
  return text(await limitedBytes(process.stdin, 'stdin'), 'stdin');
}

async function fileBytes(path: string): Promise<Buffer> {
  try {
    return await limitedBytes(createReadStream(path), path);
  } catch (error) {
    if (error instanceof EngineError) throw error;
    const { code, message } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT') throw new EngineError('FILE_NOT_FOUND', { what: 'prompt file', path });
    throw new EngineError('FILE_UNREADABLE', { path, reason: code === 'EISDIR' ? 'it is a directory' : message });
  }
}

/** Counts what arrives, because pipes and devices have no size. */
async function limitedBytes(stream: AsyncIterable<Buffer>, what: string): Promise<Buffer> {
  const chunks: Buffer[] = [];
  let size = 0;
  for await (const chunk of stream) {
    size += chunk.length;
    if (size > MAX_PROMPT_BYTES) throw tooLarge(what);
    chunks.push(chunk);
  }
  return Buffer.concat(chunks);
}

function tooLarge(path: string): EngineError {
  return new EngineError('FILE_UNREADABLE', {
    path,
    reason: `it has more than the ${MAX_PROMPT_BYTES} bytes that a prompt may have`,
  });
}

function text(bytes: Buffer, what: string): string {
  return decodeText(bytes, what)
    .replace(/\r?\n$/, '')
    .replace(/^\ufeff/, '');
}

/** Text of UTF-8 bytes, which begin at `start` of what they are part of. Throws TEXT_INVALID. */
function decodeText(bytes: Buffer, what: string, start = 0): string {
  const decoded = bytes.toString('utf8');
  const invalid = firstInvalidByte(bytes, decoded);
  if (invalid !== null) throw new EngineError('TEXT_INVALID', { what, offset: start + invalid });
  return decoded;
}

/** Lines of stdin as they arrive, without their ends. Throws TEXT_INVALID, FILE_UNREADABLE for a line that is too long. */
export async function* stdinLines(): AsyncGenerator<string, void> {
  let rest: Buffer = Buffer.alloc(0);
  let start = 0; // bytes before `rest`
  for await (const chunk of process.stdin as AsyncIterable<Buffer>) {
    rest = Buffer.concat([rest, chunk]);
    for (let end = rest.indexOf('\n'); end >= 0; end = rest.indexOf('\n')) {
      yield line(rest.subarray(0, end), start);
      rest = rest.subarray(end + 1);
      start += end + 1;
    }
    if (rest.length > MAX_PROMPT_BYTES) throw tooLarge('stdin');
  }
  if (rest.length > 0) yield line(rest, start);
}

function line(bytes: Buffer, start: number): string {
  const decoded = decodeText(bytes, 'stdin', start).replace(/\r$/, '');
  return start === 0 ? decoded.replace(/^\ufeff/, '') : decoded;
}

/** Decoding replaces what is not UTF-8 by U+FFFD, so encoding again differs there first. */
function firstInvalidByte(bytes: Buffer, decoded: string): number | null {
  const again = Buffer.from(decoded, 'utf8');
  if (again.equals(bytes)) return null;
  let offset = 0;
  while (offset < bytes.length && bytes[offset] === again[offset]) offset++;
  return offset;
}
