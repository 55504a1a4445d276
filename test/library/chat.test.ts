import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import type { ModelSource } from '../../src/formats/hub.js';
import { openModel } from '../../src/formats/hub.js';
import { Engine } from '../../src/library/engine.js';
import { chatTemplateOf } from '../../src/library/open-chat-template.js';
import { openTokenizer } from '../../src/library/open-tokenizer.js';
import { ChatTemplate } from '../../src/tokenizer/chat-template.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { tinyTemplate, writeTinyChatModel } from '../cli/tiny-chat-model.js';
import { expectEngineError } from '../formats/engine-error.js';
import { ggufSource, safetensorsSource } from '../model/sources.js';
import { tinyLlama, writeCheckpoint } from '../model/tiny-checkpoint.js';
import { itWithData } from '../shared-data.js';

const folder = temporaryFolder();
const model = writeTinyChatModel(join(folder, 'tiny.gguf'));
const messages = [{ role: 'user', content: 'hi' }];
const greedy = { temperature: 0, maxTokens: 8 };

describe('requests with messages', () => {
  let engine: Engine;
  beforeAll(async () => {
    engine = await Engine.load({ model, backend: 'reference' });
  });
  afterAll(() => engine.dispose());

  it('are answered as the text that the template makes of them', async () => {
    const text = engine.chatTemplate!.render(messages);
    expect(text).toBe('<|im_start|>user\nhi<|im_end|>\n<|im_start|>assistant\n');
    const tokenIds = engine.tokenizer.encode(text, { parseSpecial: true });
    const answer = await engine.complete({ messages, ...greedy });
    expect(answer.promptTokenIds).toEqual([...tokenIds]);
    expect(answer.tokenIds).toEqual((await engine.complete({ tokenIds, ...greedy })).tokenIds);
    let streamed = '';
    for await (const event of engine.generate({ messages, ...greedy })) streamed += event.text;
    expect(streamed).toBe(answer.text);
  });

  it("end with the token that ends the assistant's turn", async () => {
    const end = engine.tokenizer.idOf('<|im_end|>')!;
    const answer = await engine.complete({ messages, ...greedy, logitBias: { [end]: 100 } });
    expect(answer).toMatchObject({ tokenIds: [end], text: '', finishReason: 'stop' });
  });

  it('are the only prompt of a request', async () => {
    await expectEngineError(() => engine.complete({ messages, prompt: 'x' }), 'OPTION_INVALID', 'exactly one of');
    await expectEngineError(() => engine.complete({ messages, tokenIds: [1] }), 'OPTION_INVALID', 'exactly one of');
    await expectEngineError(() => engine.complete({ messages: [] }), 'OPTION_INVALID', 'messages');
  });

  it('are refused with what the template says', async () => {
    const twice = [...messages, ...messages];
    await expectEngineError(
      () => engine.complete({ messages: twice }),
      'CHAT_TEMPLATE_REFUSED',
      'roles must alternate',
    );
  });

  it('need a template, which may be given', async () => {
    const without = writeTinyChatModel(join(folder, 'without.gguf'), null);
    const other = await Engine.load({ model: without, backend: 'reference' });
    expect(other.chatTemplate).toBeNull();
    await expectEngineError(() => other.complete({ messages }), 'CHAT_TEMPLATE_MISSING', 'without.gguf');
    await other.dispose();

    const chatTemplate = join(folder, 'own.jinja');
    writeFileSync(chatTemplate, "{{ messages[0].content }}{{ '?' if ask }}{{ tools|tojson }}");
    const given = await Engine.load({ model: without, chatTemplate, backend: 'reference' });
    const request = { messages, tools: [{ name: 'f' }], chatTemplateKwargs: { ask: true }, ...greedy };
    const { promptTokenIds } = await given.complete(request);
    expect(given.tokenizer.decode(promptTokenIds)).toBe('hi?[{"name": "f"}]');
    await given.dispose();
  });

  it('fail early for a template that cannot be read', async () => {
    const broken = join(folder, 'broken.jinja');
    writeFileSync(broken, '{% if %}');
    await expectEngineError(
      () => Engine.load({ model, chatTemplate: broken }),
      'CHAT_TEMPLATE_INVALID',
      'broken.jinja',
    );
    await expectEngineError(() => Engine.load({ model, chatTemplate: folder }), 'FILE_UNREADABLE', folder);
  });

  it('do not keep a model with a broken template from loading', async () => {
    const broken = await Engine.load({
      model: writeTinyChatModel(join(folder, 'b.gguf'), '{% if %}'),
      backend: 'reference',
    });
    await broken.complete({ prompt: 'x', ...greedy });
    await expectEngineError(() => broken.complete({ messages }), 'CHAT_TEMPLATE_INVALID', 'b.gguf');
    await broken.dispose();
  });
});

describe('the chat template of a model', () => {
  const rendered = (source: ModelSource, tools?: unknown[]) =>
    chatTemplateOf(source, null)?.render(messages, { tools });
  const gguf = (metadata: Record<string, unknown>) => ggufSource(metadata);

  it('is a key of GGUF files, and further ones have names', () => {
    const key = 'tokenizer.chat_template';
    expect(rendered(gguf({}))).toBeUndefined();
    expect(rendered(gguf({ [key]: '{{ 1 }}' }))).toBe('1');
    const several = gguf({ [key]: '{{ 1 }}', [`${key}s`]: ['tool_use'], [`${key}.tool_use`]: '{{ 2 }}' });
    expect(rendered(several)).toBe('1');
    expect(rendered(several, [])).toBe('2');
  });

  it('is no name of a template that programs were expected to know', () => {
    expect(rendered(gguf({ 'tokenizer.chat_template': 'chatml' }))).toBeUndefined();
  });

  it('is in tokenizer_config.json, alone or in a list, with tokens as texts or objects', () => {
    const config = (chat_template: unknown) => ({
      ...safetensorsSource(),
      tokenizerConfig: { chat_template, bos_token: '<s>', eos_token: { content: '</s>' } } as never,
    });
    expect(rendered(config('{{ bos_token }}{{ eos_token }}'))).toBe('<s></s>');
    const several = config([
      { name: 'default', template: '{{ 1 }}' },
      { name: 'tool_use', template: '{{ 2 }}' },
    ]);
    expect(rendered(several)).toBe('1');
    expect(rendered(several, [])).toBe('2');
    expect(rendered(config(undefined))).toBeUndefined();
    expect(rendered(config(null))).toBeUndefined();
  });

  it('is in chat_template.jinja, which comes before tokenizer_config.json', async () => {
    const checkpoint = writeCheckpoint(join(folder, 'checkpoint'), tinyLlama());
    writeFileSync(join(checkpoint, 'tokenizer_config.json'), '{"chat_template": "old", "eos_token": "</s>"}');
    expect(rendered(await openModel(checkpoint))).toBe('old');
    writeFileSync(join(checkpoint, 'chat_template.jinja'), '{{ eos_token }}new');
    expect(rendered(await openModel(checkpoint))).toBe('</s>new');
  });

  it('is named in errors by its file', async () => {
    const checkpoint = writeCheckpoint(join(folder, 'refusing'), tinyLlama());
    writeFileSync(join(checkpoint, 'chat_template.jinja'), tinyTemplate);
    const template = chatTemplateOf(await openModel(checkpoint), null)!;
    const refused = () => template.render([...messages, ...messages]);
    await expectEngineError(refused, 'CHAT_TEMPLATE_REFUSED', 'chat_template.jinja', 'alternate');
  });
});

describe('the beginning of a chat', () => {
  const vocabulary = 'tokenizers/llamacpp_vocab/ggml-vocab-llama-spm.gguf';
  itWithData(vocabulary, 'is one beginning of text for GGUF, whether the template writes it or not', async (path) => {
    const tokenizer = await openTokenizer(path);
    const idsOf = (template: string) => {
      const { bosId } = tokenizer;
      const bosToken = tokenizer.tokenText(bosId!);
      return [
        ...tokenizer.encodeChat(
          ChatTemplate.parse(template, { bosToken }, path).prompt(messages, {}, tokenizer.specialTexts),
        ),
      ];
    };
    const ids = idsOf('{{ messages[0].content }}');
    expect(ids).toEqual([...tokenizer.encode('hi')]);
    expect(idsOf('{{ bos_token }}{{ messages[0].content }}')).toEqual(ids);
  });
});
