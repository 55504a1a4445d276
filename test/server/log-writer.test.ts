import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { describe, expect, it } from 'vitest';

const module = JSON.stringify(new URL('../../dist/server/request-log.js', import.meta.url).href);

/** A process that logs to stderr as a server does. */
function logging(script: string): ChildProcess {
  const code = `
    import { openLog } from ${module};
    const { log, writer } = openLog('info', false);
    process.once('exit', () => writer.finish());
    const count = (from, to) => { for (let i = from; i < to; i++) log.info({ i, filler: 'x'.repeat(i % 300) }, 'line'); };
    ${script}`;
  return spawn(process.execPath, ['--input-type=module', '-e', code], { stdio: ['ignore', 'ignore', 'pipe'] });
}

/** What it has written, and how it ended. */
async function outcome(child: ChildProcess) {
  let text = '';
  child.stderr!.setEncoding('utf8').on('data', (part: string) => {
    text += part;
  });
  const [code] = (await once(child, 'close')) as [number | null];
  const lines = text.trimEnd().split('\n');
  const numbers = lines.filter((line) => line.startsWith('{')).map((line) => (JSON.parse(line) as { i: number }).i);
  return { code, lines, numbers };
}

const upTo = (count: number) => Array.from({ length: count }, (_, i) => i);

describe('the last lines of a log', () => {
  it('are written in order before what a program writes itself', async () => {
    const { code, lines, numbers } = await outcome(
      logging(`
        count(0, 4000);
        await new Promise(setImmediate);
        count(4000, 5000);
        await writer.written(20_000);
        process.stderr.write('engine: done\\n');
        process.exitCode = 3;`),
    );
    expect(numbers).toEqual(upTo(5000));
    expect(lines.at(-1)).toBe('engine: done');
    expect(code).toBe(3);
  });

  it('are written when nothing is left to do', async () => {
    const { numbers } = await outcome(logging('count(0, 300);'));
    expect(numbers).toEqual(upTo(300));
  });

  it.each([1, 2, 3, 4, 5])('are written in order by a process that ends at once (%i)', async () => {
    const { code, numbers } = await outcome(logging('count(0, 1); count(1, 20); process.exit(4);'));
    expect(numbers).toEqual(upTo(20));
    expect(code).toBe(4);
  });

  it('keep no process from ending when nobody reads them', async () => {
    for (const end of ['', 'await writer.written(100);', 'setTimeout(() => process.exit(0), 200);']) {
      const child = logging(`count(0, 20_000); ${end}`);
      child.stderr!.pause();
      const [code] = (await once(child, 'exit')) as [number | null];
      expect([end, code]).toEqual([end, 0]);
    }
  });

  it('reach a reader that was behind', async () => {
    const child = logging('count(0, 10_000); await writer.written(20_000);');
    child.stderr!.pause();
    setTimeout(() => child.stderr!.resume(), 500);
    expect((await outcome(child)).numbers).toEqual(upTo(10_000));
  });

  it('are whole and in order where some had to be dropped', async () => {
    const { numbers } = await outcome(logging('count(0, 60_000); await writer.written(20_000);'));
    expect(numbers.length).toBeGreaterThan(10_000);
    expect(numbers.length).toBeLessThan(60_000);
    expect(numbers).toEqual(numbers.toSorted((a, b) => a - b));
  });
});
