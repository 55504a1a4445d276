import { describe, expect, it, onTestFinished } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import { TextCompleter } from '../../src/serving/completer.js';
import type { ServedModel } from '../../src/serving/served-model.js';
import { fakeLoop } from '../engine/fake-session.js';
import { post, send, start } from './harness.js';

/** A server on an engine loop whose steps fail with `fault`, while there is one. */
async function failing() {
  const { session, loop } = fakeLoop();
  onTestFinished(() => loop.dispose());
  const completer = new TextCompleter(loop, null, null, 'nowhere');
  const unused = () => {
    throw new Error('not used');
  };
  const model: ServedModel = {
    contextSize: loop.limits.contextSize,
    readPrompt: (request, signal) => completer.readPrompt(request, undefined, signal),
    applyTemplate: unused,
    readText: unused,
    decode: unused,
    embed: unused,
    generate: (request) => completer.generate(request),
    stats: () => loop.stats(),
  };
  const { url } = await start({ model: Promise.resolve(model) });
  return {
    fail: (error: Error | null) => {
      session.beforeResult = () => {
        if (error !== null) throw error;
      };
    },
    complete: async () => (await post(`${url}/v1/completions`, { prompt: [1, 2, 3], max_tokens: 2 })).status,
    health: () => send(`${url}/health`),
  };
}

const internal = new EngineError('INTERNAL', { problem: 'a kernel went wrong' });

describe('GET /health of an engine that fails', () => {
  it('is 503 after five steps in a row, and 200 after one that succeeds', async () => {
    const { fail, complete, health } = await failing();
    expect(await complete()).toBe(200);
    fail(internal);
    for (let steps = 1; steps <= 4; steps++) {
      expect(await complete()).toBe(500);
      expect((await health()).status).toBe(200);
    }
    expect(await complete()).toBe(500);
    const { status, json } = await health();
    expect([status, json.error.code, json.error.type]).toEqual([503, 'engine_failing', 'server_error']);
    expect(json.error.message).toContain('its last 5 steps have failed, with a kernel went wrong');
    fail(null);
    expect(await complete()).toBe(200);
    expect((await health()).status).toBe(200);
  });

  it('begins to count anew with every step that succeeds', async () => {
    const { fail, complete, health } = await failing();
    for (let round = 0; round < 3; round++) {
      fail(internal);
      for (let steps = 1; steps <= 4; steps++) await complete();
      fail(null);
      expect(await complete()).toBe(200);
      expect((await health()).status).toBe(200);
    }
  });

  it('is 503 at once when the device is lost', async () => {
    const { fail, complete, health } = await failing();
    fail(new EngineError('DEVICE_FAILED', { device: 'Some GPU', problem: 'it fell off the bus' }));
    expect(await complete()).toBe(503);
    const { status, json } = await health();
    expect([status, json.error.code]).toEqual([503, 'engine_failing']);
    expect(json.error.message).toContain('Some GPU has failed: it fell off the bus');
  });

  it('is 200 when it is requests that are at fault', async () => {
    const { fail, complete, health } = await failing();
    fail(new EngineError('NO_TOKEN_ALLOWED', { position: 3 }));
    for (let steps = 1; steps <= 6; steps++) expect(await complete()).toBe(400);
    expect((await health()).status).toBe(200);
  });

  it('quotes nothing that was not meant to be read', async () => {
    const { fail, complete, health } = await failing();
    fail(new TypeError('/home/somebody has a secret'));
    for (let steps = 1; steps <= 5; steps++) expect(await complete()).toBe(500);
    const { status, json } = await health();
    expect(status).toBe(503);
    expect(json.error.message).not.toContain('somebody');
  });
});
