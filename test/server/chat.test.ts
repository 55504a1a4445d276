import { describe, expect, it } from 'vitest';
import { chat, events, post, start } from './harness.js';

describe('POST /v1/chat/completions', () => {
  it('answers as OpenAI does', async () => {
    const { url, model } = await start();
    const { status, json, headers } = await post(`${url}/v1/chat/completions`, { ...chat, model: 'test/model' });
    expect(status).toBe(200);
    expect(json).toEqual({
      id: expect.stringMatching(/^chatcmpl-[0-9a-f]{32}$/),
      object: 'chat.completion',
      created: expect.any(Number),
      model: 'test/model',
      system_fingerprint: expect.stringMatching(/^fp_[0-9a-f]{10}$/),
      choices: [
        {
          index: 0,
          message: { role: 'assistant', content: 'Hello, world', refusal: null },
          logprobs: null,
          finish_reason: 'stop',
        },
      ],
      usage: { prompt_tokens: 6, completion_tokens: 12, total_tokens: 18, prompt_tokens_details: { cached_tokens: 2 } },
    });
    expect(headers.get('x-request-id')).toMatch(/^req-/);
    expect(model.requests[0]).toMatchObject({ temperature: 1, topP: 1, topK: 0, minP: 0, n: 1, ignoreEos: false });
    expect(model.requests[0]!.maxTokens).toBeUndefined();
  });

  it('streams the role, the text, the end, usage and [DONE]', async () => {
    const { url, model } = await start();
    model.reply = 'Hé"\n';
    const chunks = await events(`${url}/v1/chat/completions`, { ...chat, stream_options: { include_usage: true } });
    expect(chunks.at(-1)).toBe('[DONE]');
    const parsed = chunks.slice(0, -1);
    for (const chunk of parsed) {
      expect(chunk).toMatchObject({ id: parsed[0].id, object: 'chat.completion.chunk', model: 'test/model' });
    }
    const choice = (delta: object, finish_reason: string | null = null) => [
      { index: 0, delta, logprobs: null, finish_reason },
    ];
    expect(parsed.map(({ choices }) => choices)).toEqual([
      choice({ role: 'assistant', content: '', refusal: null }),
      choice({ content: 'H' }),
      choice({ content: 'é' }),
      choice({ content: '"' }),
      choice({ content: '\n' }),
      choice({}, 'stop'),
      [],
    ]);
    expect(parsed.slice(0, -1).map(({ usage }) => usage)).toEqual(Array(6).fill(null));
    expect(parsed.at(-1).usage).toEqual({
      prompt_tokens: 6,
      completion_tokens: 4,
      total_tokens: 10,
      prompt_tokens_details: { cached_tokens: 2 },
    });
  });

  it('leaves usage out of a stream that has not asked for it', async () => {
    const { url } = await start();
    const chunks = await events(`${url}/v1/chat/completions`, chat);
    expect(chunks.slice(0, -1).every((chunk) => !('usage' in chunk) && chunk.choices.length === 1)).toBe(true);
  });

  it('streams n answers, each with its own role and end', async () => {
    const { url, model } = await start();
    model.reply = 'ab';
    const chunks = (await events(`${url}/v1/chat/completions`, { ...chat, n: 3 })).slice(0, -1);
    for (const index of [0, 1, 2]) {
      const own = chunks.map(({ choices }) => choices[0]).filter((choice) => choice.index === index);
      expect(own.map(({ delta }) => delta)).toEqual([
        { role: 'assistant', content: '', refusal: null },
        { content: 'a' },
        { content: 'b' },
        {},
      ]);
      expect(own.at(-1).finish_reason).toBe('stop');
    }
  });

  it('counts the prompt of n answers once', async () => {
    const { url } = await start();
    const { json } = await post(`${url}/v1/chat/completions`, { ...chat, n: 3, max_completion_tokens: 5 });
    expect(json.choices.map(({ index }: { index: number }) => index)).toEqual([0, 1, 2]);
    expect(json.choices[2].finish_reason).toBe('length');
    expect(json.usage).toMatchObject({ prompt_tokens: 6, completion_tokens: 15, total_tokens: 21 });
  });

  it('gives log-probabilities with bytes, whole and streamed', async () => {
    const { url, model } = await start();
    model.reply = 'é\ufffd';
    const body = { ...chat, logprobs: true, top_logprobs: 4 };
    const { json } = await post(`${url}/v1/chat/completions`, body);
    const { content, refusal } = json.choices[0].logprobs;
    expect(refusal).toBeNull();
    expect(content[0]).toMatchObject({ token: 'é', logprob: -0.5, bytes: [0xc3, 0xa9] });
    expect(content[0].top_logprobs[1]).toEqual({ token: 'é1', logprob: -1.5, bytes: [0xc3, 0xa9, 0x31] });
    expect(content[0].top_logprobs[3].logprob).toBe(-9999);
    expect(content[1].bytes).toBeNull();
    const chunks = (await events(`${url}/v1/chat/completions`, body)).slice(1, 3);
    expect(chunks.flatMap(({ choices }) => choices[0].logprobs.content)).toEqual(content);
  });

  it('passes options on by the names of OpenAI, vLLM and llama.cpp', async () => {
    const { url, model } = await start({ aliases: ['gpt-4o'] });
    const { status } = await post(`${url}/v1/chat/completions`, {
      ...chat,
      model: 'gpt-4o',
      temperature: 0,
      top_p: 0.5,
      top_k: -1,
      min_p: 0.1,
      typical_p: 0.9,
      repeat_penalty: 1.1,
      presence_penalty: 1,
      frequency_penalty: -1,
      logit_bias: { 5: -100 },
      seed: -1,
      stop: 'x',
      ignore_eos: true,
      max_tokens: 7,
      cache_salt: 'salt',
      priority: -3,
      reasoning_effort: 'low',
      chat_template_kwargs: { enable_thinking: false },
      user: 'someone',
      some_new_field: { of: ['another', 'server'] },
      metadata: null,
      service_tier: 'auto',
    });
    expect(status).toBe(200);
    expect(model.requests[0]).toMatchObject({
      temperature: 0,
      topP: 0.5,
      topK: 0,
      minP: 0.1,
      typicalP: 0.9,
      repetitionPenalty: 1.1,
      presencePenalty: 1,
      frequencyPenalty: -1,
      logitBias: { 5: -100 },
      seed: Number.MAX_SAFE_INTEGER,
      stop: ['x'],
      ignoreEos: true,
      maxTokens: 7,
      cacheSalt: 'salt',
      priority: -3,
      chatTemplateKwargs: { reasoning_effort: 'low', enable_thinking: false },
    });
  });

  it('reads text parts and developer messages, and passes on the fields that templates know', async () => {
    const { url, model } = await start();
    const content = [
      { type: 'text', text: 'a' },
      { type: 'text', text: 'b' },
    ];
    const messages = [
      { role: 'developer', content: 'd' },
      { role: 'user', content, name: 'Ann', unknown: 1 },
      { role: 'assistant', content: null, reasoning_content: 'why' },
    ];
    await post(`${url}/v1/chat/completions`, { messages });
    expect(model.requests[0]!.messages).toEqual([
      { role: 'system', content: 'd' },
      { role: 'user', content: 'a\nb', name: 'Ann' },
      { role: 'assistant', content: '', reasoning_content: 'why' },
    ]);
  });

  it('returns token ids if asked to', async () => {
    const { url, model } = await start();
    model.reply = 'ab';
    const body = { ...chat, return_token_ids: true };
    const prompt = [1, ...Buffer.from('u:Hi|')];
    const { json } = await post(`${url}/v1/chat/completions`, body);
    expect(json).toMatchObject({ prompt_token_ids: prompt, choices: [{ token_ids: [97, 98] }] });
    const chunks = await events(`${url}/v1/chat/completions`, body);
    expect(chunks[0].prompt_token_ids).toEqual(prompt);
    expect(chunks.slice(1, 3).map(({ choices }) => choices[0].token_ids)).toEqual([[97], [98]]);
  });
});
