import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { describe, expect, it } from 'vitest';
import { sharedData, skipReason } from '../shared-data.js';
import { OpenApi } from './clients/openapi.js';
import { expectIdle, messages, modelName, realServer } from './clients/real-server.js';
import { events, type Json, post, send } from './harness.js';

const specFile = 'api_spec/openai-openapi.json';
const snapshots = 'api_spec/tgi_snapshots';
const path = sharedData(specFile);
const server = await realServer({}, { apiKeys: [], limits: { defaultMaxTokens: 6 } });
const { url } = server;
const base = { model: modelName, max_tokens: 6, seed: 1 };
const chat = { ...base, messages };
const completion = { ...base, prompt: 'Once upon a time' };

describe.skipIf(path === null)(`OpenAI's specification${path === null ? ` (${skipReason(specFile)})` : ''}`, () => {
  const spec = path === null ? null! : new OpenApi(path);

  /** The value is as the schema has it, and has no fields but the schema's and `extra`. */
  const expectValid = (schema: string, value: Json, extra: readonly string[] = []) => {
    expect([schema, spec.faults(schema, value)]).toEqual([schema, []]);
    expect([schema, spec.unknownFields(schema, value)]).toEqual([schema, extra]);
  };

  it('would not take other answers for chat completions', async () => {
    const { json } = await post(`${url}/v1/chat/completions`, chat);
    const { message, ...choice } = json.choices[0];
    expect(spec.faults('CreateChatCompletionResponse', { ...json, choices: [choice] })).not.toEqual([]);
    expect(spec.faults('CreateChatCompletionResponse', { ...json, object: 'chat' })).not.toEqual([]);
    expect(spec.faults('CreateChatCompletionStreamResponse', json)).not.toEqual([]);
    expect(spec.unknownFields('CreateChatCompletionResponse', { choices: [{ more: 1 }] })).toEqual(['.choices[].more']);
  });

  it.each([
    ['plain', {}],
    ['n of 3', { n: 3 }],
    ['log-probabilities', { logprobs: true, top_logprobs: 5 }],
    ['stop', { stop: ['e', 'a'] }],
    ['cached prompt', { n: 2 }],
  ])('describes chat completions, whole and streamed: %s', async (_, fields) => {
    const whole = await post(`${url}/v1/chat/completions`, { ...chat, ...fields });
    expect(whole.status).toBe(200);
    expectValid('CreateChatCompletionResponse', whole.json);
    for (const stream_options of [undefined, { include_usage: true }]) {
      const chunks = await events(`${url}/v1/chat/completions`, { ...chat, ...fields, stream_options });
      expect(chunks.pop()).toBe('[DONE]');
      expect(chunks.length).toBeGreaterThan(1);
      for (const chunk of chunks) expectValid('CreateChatCompletionStreamResponse', chunk);
    }
  });

  it.each([
    ['plain', {}],
    ['several prompts, n of 2', { prompt: ['A fox', 'A wolf'], n: 2 }],
    ['echo', { echo: true }],
    ['log-probabilities', { logprobs: 3 }],
  ])('describes completions, whole and streamed: %s', async (_, fields) => {
    const whole = await post(`${url}/v1/completions`, { ...completion, ...fields });
    expect(whole.status).toBe(200);
    expectValid('CreateCompletionResponse', whole.json);
    const chunks = await events(`${url}/v1/completions`, {
      ...completion,
      ...fields,
      stream_options: { include_usage: true },
    });
    expect(chunks.pop()).toBe('[DONE]');
    for (const { usage, choices, ...chunk } of chunks) {
      // The specification has no chunks of completions; null stands there for what is not known yet.
      const known = choices.map((choice: Json) => ({ ...choice, finish_reason: choice.finish_reason ?? 'length' }));
      expectValid('CreateCompletionResponse', { ...chunk, choices: known, ...(usage !== null && { usage }) });
    }
  });

  it('describes embeddings, models and errors', async () => {
    const input = ['A fox', 'A wolf'];
    const { json } = await post(`${url}/v1/embeddings`, { model: modelName, input });
    expectValid('CreateEmbeddingResponse', json);
    const list = await send(`${url}/v1/models`);
    expectValid('ListModelsResponse', list.json, ['.data[].max_model_len']); // vLLM's
    expectValid('Model', (await send(`${url}/v1/models/${modelName}`)).json, ['.max_model_len']);
    const refused = [
      await post(`${url}/v1/chat/completions`, { ...chat, n: 0 }),
      await post(`${url}/v1/chat/completions`, { ...chat, model: 'gpt-5' }),
      await post(`${url}/v1/chat/completions`, '{'),
      await post(`${url}/v1/completions`, { ...completion, prompt: 'fox '.repeat(2000) }),
      await post(`${url}/v1/embeddings`, { input: [] }),
      await send(`${url}/nowhere`),
      await send(`${url}/v1/embeddings`),
    ];
    expect(refused.map(({ status }) => status)).toEqual([400, 404, 400, 400, 400, 404, 405]);
    for (const { json } of refused) expectValid('ErrorResponse', json);
  });

  it.each([['/chat/completions'], ['/completions'], ['/embeddings']])(
    'has example requests for %s, which are answered, or refused by name',
    async (route) => {
      const refused: string[] = [];
      for (const { title, body } of spec.examples(route, 'post')) {
        const { status, json } = await (body.stream === true
          ? events(`${url}/v1${route}`, { ...body, model: modelName }).then((all) => ({
              status: all.at(-1) === '[DONE]' ? 200 : 500,
              json: null,
            }))
          : post(`${url}/v1${route}`, { ...body, model: modelName }));
        if (status !== 200) refused.push(`${title}: ${status} ${json?.error.param}`);
      }
      // Pictures and tools are not there yet.
      const expected = ['Image input: 400 messages[0].content[1].type', 'Functions: 400 tools'];
      expect(refused).toEqual(route === '/chat/completions' ? expected : []);
    },
  );

  it.each([
    ['/chat/completions', 'CreateChatCompletionRequest', chat],
    ['/completions', 'CreateCompletionRequest', completion],
    ['/embeddings', 'CreateEmbeddingRequest', { model: modelName, input: 'A fox' }],
  ])('has fields for %s, each of which is accepted, or refused by name', async (route, name, body) => {
    const properties = Object.entries(spec.properties(spec.schema(name)));
    expect(properties.length).toBeGreaterThan(4);
    for (const [field, schema] of properties) {
      if (['model', 'stream', 'stream_options'].includes(field)) continue;
      const companions = field === 'top_logprobs' ? { logprobs: true } : {};
      const value = field in body ? (body as Json)[field] : spec.sample(schema);
      const { status, json } = await post(`${url}/v1${route}`, { ...body, ...companions, [field]: value });
      const named = status === 400 && String(json.error.param).startsWith(field);
      expect([field, value, status === 200 || named ? 'fine' : json.error]).toEqual([field, value, 'fine']);
    }
    await expectIdle(server);
  });
});

/** Paths of all values that are there; items of lists are []. */
function pathsOf(value: Json, path = ''): string[] {
  if (value === null || value === '') return [];
  if (Array.isArray(value)) return value.flatMap((item) => pathsOf(item, `${path}[]`));
  if (typeof value !== 'object') return [path];
  return Object.entries(value).flatMap(([name, field]) => pathsOf(field, `${path}.${name}`));
}

const folder = sharedData(snapshots);

describe.skipIf(folder === null)(`Hugging Face's server${folder === null ? ` (${skipReason(snapshots)})` : ''}`, () => {
  const files = ['test_completion_prompts', 'test_chat_llama'].flatMap((kind) =>
    folder === null ? [] : readdirSync(join(folder, kind)).map((file) => join(folder, kind, file)),
  );

  it('says nothing that we leave out', async () => {
    const stream_options = { include_usage: true };
    const ours: Readonly<Record<string, Json>> = {
      'chat.completion': (await post(`${url}/v1/chat/completions`, chat)).json,
      'chat.completion.chunk': await events(`${url}/v1/chat/completions`, { ...chat, stream_options }),
      text_completion: [
        (await post(`${url}/v1/completions`, completion)).json,
        ...(await events(`${url}/v1/completions`, { ...completion, stream_options })),
      ],
    };
    expect(files.length).toBeGreaterThan(5);
    for (const file of files) {
      const theirs = [JSON.parse(readFileSync(file, 'utf8'))].flat(2);
      const known = new Set([ours[theirs[0].object]].flat().flatMap((answer) => pathsOf(answer)));
      const fields = theirs.flatMap((one) => pathsOf(one));
      expect(fields.length).toBeGreaterThan(5);
      expect([file, fields.filter((field) => !known.has(field))]).toEqual([file, []]);
    }
  });
});
