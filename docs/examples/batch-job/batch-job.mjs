// Answers every line of a JSON lines file: many at once, written in order, resumable after Ctrl-C.
//
//   node batch-job.mjs IN.jsonl OUT.jsonl
import { setMaxListeners } from 'node:events';
import { open } from 'node:fs/promises';
import { Engine, EngineError } from 'engine-ts';

/** Lines answered at once: enough to fill the engine's batches although the oldest is waited for. */
const WINDOW = 32;

const [inputPath, outputPath] = process.argv.slice(2);
if (outputPath === undefined) {
  console.error('usage: node batch-job.mjs IN.jsonl OUT.jsonl');
  process.exit(2);
}

const interrupt = new AbortController();
setMaxListeners(WINDOW, interrupt.signal); // every answer under way listens
process.on('SIGINT', () => {
  if (interrupt.signal.aborted) process.exit(130); // a second Ctrl-C does not wait
  interrupt.abort();
});

const total = await countLines(await open(inputPath));
const output = await open(outputPath, 'a+');
const done = await wholeLines(output);
if (done > total) {
  console.error(`${outputPath} has ${done} lines, ${inputPath} only ${total}; they do not belong together`);
  process.exit(2);
}
const engine = await Engine.load({ model: process.env.MODEL, batchSize: 8 });
const progress = {
  start: performance.now(),
  first: done,
  line: done,
  total,
  tokens: 0,
  failed: 0,
  isCut: false,
  drawn: 0,
};

/** Answers under way, oldest first. */
const window = [];
let number = 0;
for await (const line of (await open(inputPath)).readLines()) {
  if (interrupt.signal.aborted) break;
  if (number++ < done) continue;
  window.push(answer(line, number));
  if (window.length === WINDOW) await write(await window.shift());
}
for (const result of window) await write(await result);

showProgress(progress, true);
await engine.dispose();
await output.close();
if (progress.failed > 0) {
  console.error(`lines with an error in place of an answer: ${progress.failed}`);
  process.exitCode = 1;
}
if (progress.line < total) {
  console.error(`stopped after ${progress.line} of ${total} lines; the same command goes on from there`);
  process.exitCode = 130;
}

/** One line's answer, what is wrong with the line, or null if it was interrupted. */
async function answer(line, number) {
  try {
    const { id = number, ...request } = requestOf(line, number);
    let text = '';
    for await (const event of engine.generate({ ...request, signal: interrupt.signal })) {
      progress.tokens += event.tokenIds.length;
      showProgress(progress);
      text += event.text;
      if (!event.outcome) continue;
      const { finishReason, usage } = event.outcome;
      return finishReason === 'abort' ? null : { id, text, finishReason, tokens: usage.completionTokens };
    }
  } catch (error) {
    if (!(error instanceof EngineError) || error.status >= 500) throw error; // not the line's fault
    return { id: number, error: { code: error.code, message: error.message } };
  }
}

/** Greedy unless a line says otherwise, and then with a seed of its own: the same file gives the same answers. */
function requestOf(line, number) {
  let value;
  try {
    value = JSON.parse(line);
  } catch {
    // refused below
  }
  if (typeof value !== 'object' || value === null) {
    throw new EngineError('OPTION_INVALID', { option: `line ${number}`, value: line, expected: 'a JSON object' });
  }
  const { id, prompt, maxTokens = 64, temperature = 0, seed = number } = value;
  return { id, prompt, maxTokens, temperature, seed };
}

/** Appends a result, unless one before it is missing: lines of the output are those of the input, in their order. */
async function write(result) {
  if (result === null) progress.isCut = true;
  if (progress.isCut) return;
  await output.appendFile(`${JSON.stringify(result)}\n`);
  progress.line++;
  if (result.error) progress.failed++;
  showProgress(progress);
}

/** How many lines of the output are whole; a last one that was cut short is removed. */
async function wholeLines(file) {
  let lines = 0;
  let bytes = 0;
  let whole = 0;
  for await (const chunk of file.createReadStream({ start: 0, autoClose: false })) {
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, end + 1)) {
      lines++;
      whole = bytes + end + 1;
    }
    bytes += chunk.length;
  }
  if (whole < bytes) await file.truncate(whole);
  return lines;
}

async function countLines(file) {
  let lines = 0;
  for await (const _ of file.readLines()) lines++;
  return lines;
}

/** On a terminal only, at most ten times a second. */
function showProgress({ start, first, line, total, tokens, drawn }, isLast = false) {
  if (!process.stderr.isTTY) return;
  const now = performance.now();
  if (!isLast && now - drawn < 100) return;
  progress.drawn = now;
  const seconds = (now - start) / 1000;
  const part = total > 0 ? line / total : 1;
  const left = line > first ? Math.round(((total - line) * seconds) / (line - first)) : null;
  const eta = left === null ? '' : `, ${Math.floor(left / 60)}:${String(left % 60).padStart(2, '0')} left`;
  const bar = '█'.repeat(Math.round(24 * part)).padEnd(24, '░');
  process.stderr.write(`\r\x1b[K${bar} ${line}/${total} lines, ${Math.round(tokens / seconds)} tokens/s${eta}`);
  if (isLast) process.stderr.write('\n');
}
