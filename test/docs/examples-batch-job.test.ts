import { execFileSync } from 'node:child_process';
import { existsSync, mkdtempSync, readFileSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { eventually, examplePath, runExample } from './run-example.js';

const job = 'batch-job/batch-job.mjs';
const folder = mkdtempSync(join(tmpdir(), 'engine-batch-'));
const input = join(folder, 'in.jsonl');
const NUM_LINES = 240;
const lines = Array.from({ length: NUM_LINES }, (_, i) => {
  if (i === 20) return 'no JSON';
  if (i === 40) return JSON.stringify({ id: 'long', prompt: 'word '.repeat(2000) });
  return JSON.stringify({ prompt: `Story number ${i} began`, maxTokens: 1 + (i % 16), temperature: i % 2 });
});
writeFileSync(input, lines.join('\n'));

interface Result {
  id: number | string;
  text?: string;
  tokens?: number;
  error?: { code: string; message: string };
}

const resultsOf = (path: string) =>
  readFileSync(path, 'utf8')
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line) as Result);
const numLines = (path: string) => (existsSync(path) ? readFileSync(path, 'utf8').split('\n').length - 1 : 0);

describe('docs/examples/batch-job', () => {
  it('answers in order, and after Ctrl-C goes on to the same file', async () => {
    const whole = join(folder, 'whole.jsonl');
    const { code, stdout, stderr } = await runExample(job, [input, whole]);
    expect(stdout).toBe('');
    expect(stderr).toBe('lines with an error in place of an answer: 2\n'); // and no bar, as it is no terminal
    expect(code).toBe(1);
    const results = resultsOf(whole);
    expect(results.map(({ id }) => id)).toEqual(Array.from({ length: NUM_LINES }, (_, i) => i + 1));
    for (const [i, { text, tokens, error }] of results.entries()) {
      if (i === 20) expect(error).toMatchObject({ code: 'OPTION_INVALID' });
      else if (i === 40) expect(error).toMatchObject({ code: 'PROMPT_TOO_LONG' });
      else expect({ i, tokens, text: text!.length > 0 }).toEqual({ i, tokens: 1 + (i % 16), text: true });
    }

    const resumed = join(folder, 'resumed.jsonl');
    const cut = await runExample(job, [input, resumed], (child) => {
      void eventually('some lines are written', () => numLines(resumed) >= 3).then(() => child.kill('SIGINT'));
    });
    expect(cut.code).toBe(130);
    expect(cut.stderr).toMatch(/stopped after \d+ of 240 lines/);
    expect(numLines(resumed)).toBeLessThan(NUM_LINES);
    writeFileSync(resumed, '{"id": 99, "te', { flag: 'a' }); // as if the machine had stopped while it wrote
    expect((await runExample(job, [input, resumed])).stderr).not.toContain('stopped');
    expect(readFileSync(resumed, 'utf8')).toBe(readFileSync(whole, 'utf8'));
  }, 120_000);

  it('refuses an output that has more lines than the input', async () => {
    const longer = join(folder, 'longer.jsonl');
    writeFileSync(longer, '{}\n'.repeat(NUM_LINES + 1));
    const { code, stderr } = await runExample(job, [input, longer]);
    expect(code).toBe(2);
    expect(stderr).toContain('do not belong together');
  });

  const hasTerminal = existsSync('/usr/bin/script') && process.platform === 'linux';
  it.skipIf(!hasTerminal)(
    `draws a bar on a terminal${hasTerminal ? '' : ' (skipped: no program `script` to make one)'}`,
    () => {
      const short = join(folder, 'short.jsonl');
      writeFileSync(short, lines.slice(0, 3).join('\n'));
      const command = `'${process.execPath}' '${examplePath(job)}' '${short}' '${join(folder, 'short-out.jsonl')}'`;
      const shown = execFileSync('/usr/bin/script', ['-qec', command, '/dev/null'], { encoding: 'utf8' });
      expect(shown).toMatch(/█{24} 3\/3 lines, \d+ tokens\/s, 0:00 left/);
    },
  );
});
