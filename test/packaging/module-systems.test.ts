import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { consumerWith, runNode, tell } from './consumer.js';
import { expectedAnswer } from './expected.js';

describe('the package is loaded', () => {
  it('by import', async () => {
    const folder = consumerWith({ 'main.mjs': `import { Engine } from 'engine-ts'; ${tell('{}')}` });
    expect(await runNode(join(folder, 'main.mjs'))).toEqual(await expectedAnswer('auto'));
  });

  it('by require()', async () => {
    const program = `const { Engine } = require('engine-ts'); (async () => { ${tell('{}')} })();`;
    const folder = consumerWith({ 'main.cjs': program });
    expect(await runNode(join(folder, 'main.cjs'))).toEqual(await expectedAnswer('auto'));
  });

  it('by both at once, with one copy of every class', async () => {
    const program = `
      import { createRequire } from 'node:module';
      import * as imported from 'engine-ts';
      const required = createRequire(import.meta.url)('engine-ts');
      const error = await required.Engine.load({ contextSize: -1 }).catch((error) => error);
      console.log(JSON.stringify({
        names: Object.keys(required).sort(),
        same: Object.keys(imported).every((name) => name === 'module.exports' || imported[name] === required[name]),
        isEngineError: error instanceof imported.EngineError,
        code: error.code,
      }));`;
    const folder = consumerWith({ 'main.mjs': program });
    const answer = await runNode<object>(join(folder, 'main.mjs'));
    expect(answer).toMatchObject({ same: true, isEngineError: true, code: 'OPTION_INVALID' });
    expect(answer).toHaveProperty('names', expect.arrayContaining(['Engine', 'EngineError']));
  });

  it.each([
    ['import', 'main.mjs', "import { Engine } from 'engine-ts'; import { createServer } from 'engine-ts/server';"],
    [
      'require()',
      'main.cjs',
      "const { Engine } = require('engine-ts'); const { createServer } = require('engine-ts/server');",
    ],
  ])('with its server, by %s', async (_how, name, load) => {
    const program = `${load}
      (async () => {
        const engine = await Engine.load();
        const app = createServer({ model: Promise.resolve(engine), modelName: 'fable' });
        const payload = { prompt: 'The king', max_tokens: 4, temperature: 0 };
        const headers = { host: 'localhost' };
        const answer = await app.inject({ method: 'POST', url: '/v1/completions', payload, headers });
        console.log(JSON.stringify({ status: answer.statusCode, text: answer.json().choices[0].text }));
        await app.close();
        await engine.dispose();
      })();`;
    const folder = consumerWith({ [name]: program });
    expect(await runNode(join(folder, name))).toEqual({ status: 200, text: expect.stringMatching(/\w/) });
  });

  it.each(['auto', 'reference'] as const)('in two worker threads at once (backend %s)', async (backend) => {
    const main = `
      const { Worker, isMainThread, parentPort } = require('node:worker_threads');
      const { once } = require('node:events');
      const answer = async () => {
        const { Engine } = require('engine-ts');
        const console = { log: (text) => parentPort.postMessage(JSON.parse(text)) };
        ${tell(`{ backend: '${backend}', threads: 1 }`)}
      };
      const main = async () => {
        const workers = [new Worker(__filename), new Worker(__filename)];
        const events = (name) => Promise.all(workers.map(async (worker) => (await once(worker, name))[0]));
        const [answers, codes] = await Promise.all([events('message'), events('exit')]);
        console.log(JSON.stringify({ answers, codes }));
      };
      (isMainThread ? main : answer)();`;
    const folder = consumerWith({ 'main.cjs': main });
    const expected = await expectedAnswer(backend);
    expect(await runNode(join(folder, 'main.cjs'))).toEqual({ answers: [expected, expected], codes: [0, 0] });
  });
});
