import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';

describe('docs/examples/story-service.mjs', () => {
  let service: ChildProcess;
  let url: string;

  beforeAll(async () => {
    const path = fileURLToPath(new URL('../../docs/examples/story-service.mjs', import.meta.url));
    service = spawn(process.execPath, [path], {
      env: { ...process.env, PORT: '0' },
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    const [line] = (await once(service.stdout!, 'data')) as [Buffer];
    url = /http:\S+/.exec(line.toString())![0];
  });

  afterAll(async () => {
    const exit = once(service, 'exit');
    service.kill('SIGTERM');
    expect((await exit)[0]).toBe(0);
  });

  const post = (body: unknown, signal: AbortSignal | null = null) =>
    fetch(`${url}/story`, { method: 'POST', body: JSON.stringify(body), signal });

  it('streams a story', async () => {
    const response = await post({ prompt: 'Once upon a time', maxTokens: 30, seed: 3 });
    expect(response.status).toBe(200);
    const story = await response.text();
    expect(story.length).toBeGreaterThan(20);
    const again = await post({ prompt: 'Once upon a time', maxTokens: 30, seed: 3 });
    expect(await again.text()).toBe(story);
  });

  it('answers wrong requests with the message of the engine', async () => {
    const empty = await post({ prompt: '' });
    expect(empty.status).toBe(400);
    expect((await post(null)).status).toBe(400);
    expect(await empty.text()).toContain('the prompt is empty');
    const broken = await fetch(`${url}/story`, { method: 'POST', body: '{' });
    expect(broken.status).toBe(400);
    expect((await fetch(url)).status).toBe(404);
  });

  it('goes on after a client hangs up', async () => {
    const hangUp = new AbortController();
    const response = await post({ prompt: 'Once', maxTokens: 900 }, hangUp.signal);
    await response.body!.getReader().read();
    hangUp.abort();
    expect((await post({ prompt: 'A fox', maxTokens: 5 })).status).toBe(200);
  });
});
