import { describe, expect, it } from 'vitest';
import { eventually, runExample } from './run-example.js';

interface Thread {
  readonly model: { readonly name: string };
  generate(request: Record<string, unknown>): AsyncGenerator<{ text: string; outcome?: { finishReason: string } }>;
  stats(): Promise<{ running: number; waiting: number }>;
  dispose(): Promise<void>;
}

describe('docs/examples/worker-thread', () => {
  it('streams answers, ends one early, and leaves nothing running', async () => {
    const { code, stdout, stderr } = await runExample('worker-thread/worker-thread.mjs', ['The king', 'A fox']);
    expect(stderr).toBe('');
    expect(code).toBe(0);
    const [king, fox, ended, stats] = stdout.trimEnd().split('\n');
    expect((JSON.parse(king!) as string).length).toBeGreaterThan('The king'.length + 20);
    expect((JSON.parse(fox!) as string).startsWith('A fox')).toBe(true);
    expect(ended).toMatch(/^ended after \d tokens: abort$/);
    expect(stats).toBe('running 0, waiting 0');
  });

  it('brings errors across, frees what is left early, and rejects what waits when it is disposed', async () => {
    const { EngineThread } = (await import('../../docs/examples/worker-thread/worker-thread.mjs' as string)) as {
      EngineThread: { load(options?: Record<string, unknown>): Promise<Thread> };
    };
    await expect(EngineThread.load({ model: '/no/such/model' })).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    const thread = await EngineThread.load();
    expect(thread.model.name).toMatch(/\.gguf$/);
    await expect(thread.generate({ prompt: '' }).next()).rejects.toMatchObject({ code: 'PROMPT_EMPTY', status: 400 });
    for await (const _ of thread.generate({ prompt: 'Once', maxTokens: 900, temperature: 0 })) break;
    await eventually('the answer that was left has ended', async () => {
      const { running, waiting } = await thread.stats();
      return running + waiting === 0;
    });
    const open = thread.generate({ prompt: 'Once', maxTokens: 900, temperature: 0 });
    await open.next();
    await thread.dispose();
    await expect(open.next()).rejects.toThrow('the engine thread has ended');
    await expect(thread.stats()).rejects.toThrow('the engine thread has ended');
  });
});
