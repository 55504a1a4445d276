import { describe, expect, it } from 'vitest';
import { type ChatMessage, ChatTemplate } from '../../src/tokenizer/chat-template.js';
import { expectEngineError } from '../formats/engine-error.js';

const tokens = { bosToken: '<s>', eosToken: '</s>' };
const parse = (source: string) => ChatTemplate.parse(source, tokens, 'model.gguf');
const hello: ChatMessage[] = [{ role: 'user', content: 'hello' }];

describe('ChatTemplate', () => {
  it('gives templates the messages, the tokens and whether the assistant comes next', () => {
    const template = parse(
      '{{ bos_token }}{% for m in messages %}{{ m.role }}: {{ m["content"] }}{{ eos_token }}{% endfor %}' +
        '{% if add_generation_prompt %}assistant:{% endif %}',
    );
    expect(template.render(hello)).toBe('<s>user: hello</s>assistant:');
    expect(template.render(hello, { addGenerationPrompt: false })).toBe('<s>user: hello</s>');
  });

  it('drops the line break after a block and the spaces before it, as transformers does', () => {
    const source = '{% for m in messages %}\n  {% if true %}\n{{ m.content }}\n  {% endif %}\n{% endfor %}\n';
    expect(parse(source).render(hello)).toBe('hello\n');
  });

  it('gives templates tools and more variables', () => {
    const template = parse('{{ tools is none }} {{ documents is none }} {{ enable_thinking is defined }}');
    expect(template.render(hello)).toBe('True True False');
    expect(template.render(hello, { tools: [], variables: { enable_thinking: false } })).toBe('False True True');
  });

  it('does not let a request overwrite the messages and the tokens', () => {
    const variables = { messages: [], bos_token: 'x', add_generation_prompt: 'x' };
    expect(parse('{{ messages|length }}{{ bos_token }}{{ add_generation_prompt }}').render(hello, { variables })).toBe(
      '1<s>True',
    );
  });

  it('reports what a template objects to', async () => {
    const template = parse("{{ raise_exception('Roles must\\nalternate') }}");
    await expectEngineError(
      () => template.render(hello),
      'CHAT_TEMPLATE_REFUSED',
      'model.gguf',
      'Roles must alternate',
    );
  });

  it.each([[[]], [[{}]], [[{ role: 1 }]], [[null]], ['hello'], [undefined]])(
    'refuses %j as messages',
    async (messages) => {
      await expectEngineError(() => parse('x').render(messages as never), 'OPTION_INVALID', 'messages');
    },
  );

  it('refuses messages that hold themselves', async () => {
    const message: Record<string, unknown> = { role: 'user' };
    message.content = message;
    await expectEngineError(() => parse('x').render([message as never]), 'CHAT_TEMPLATE_LIMIT', 'nested');
  });

  it('renders a conversation of thousands of messages', () => {
    const messages = Array.from({ length: 4000 }, (_, i) => ({
      role: i % 2 ? 'assistant' : 'user',
      content: `${i} `.repeat(50),
    }));
    const text = parse(
      "{% for m in messages %}{% if m.role == 'user' and not loop.last %}{{ '<u>' + m.content|trim }}{% else %}{{ '<a>' + m['content'] }}{% endif %}{% endfor %}",
    ).render(messages);
    expect(text).toHaveLength(messages.reduce((sum, { content }) => sum + content.length + 3, 0) - 2000);
  });
});

describe('several templates', () => {
  const several = (names: string[]) => new ChatTemplate(new Map(names.map((name) => [name, name])), tokens, 'model');

  it('"default" is the one that is used, and "tool_use" if there are tools', () => {
    const template = several(['rag', 'tool_use', 'default']);
    expect(template.names).toEqual(['rag', 'tool_use', 'default']);
    expect(template.render(hello)).toBe('default');
    expect(template.render(hello, { tools: [{}] })).toBe('tool_use');
    expect(template.render(hello, { tools: [{}], template: 'rag' })).toBe('rag');
    expect(several(['default', 'rag']).render(hello, { tools: [{}] })).toBe('default');
    expect(several(['only']).render(hello)).toBe('only');
  });

  it('a name that is none of them is an error that lists them', async () => {
    await expectEngineError(
      () => several(['default', 'rag']).render(hello, { template: 'x' }),
      'OPTION_INVALID',
      'default, rag',
    );
    await expectEngineError(() => several(['a', 'b']).render(hello), 'OPTION_INVALID', 'one of a, b');
  });

  it('are parsed when they are used', async () => {
    const template = new ChatTemplate(
      new Map([
        ['default', 'fine'],
        ['tool_use', '{{'],
      ]),
      tokens,
      'model',
    );
    expect(template.render(hello)).toBe('fine');
    await expectEngineError(() => template.render(hello, { tools: [] }), 'CHAT_TEMPLATE_INVALID', 'model');
  });
});

describe('the template language is that of Python', () => {
  const cases: [source: string, expected: string][] = [
    ["{{ '\\n\\n x \\n'.strip('\\n') }}|{{ 'xxaxx'.lstrip('x') }}|{{ 'xxaxx'.rstrip('x') }}", ' x |axx|xxa'],
    ["{{ '\\x1c a \\ufeff'|trim|length }}", '3'],
    [
      '{% for i in [1, 2] %}{{ x is defined }}{% set x = i %}{{ x }} {% endfor %}{{ x is defined }}',
      'False1 False2 False',
    ],
    [
      '{{ none }} {{ true }} {{ 1.0 }} {{ [1, "a", none, {"b": false}] }}',
      "None True 1.0 [1, 'a', None, {'b': False}]",
    ],
    [
      `{{ ["it's", 'say "hi"', "both ' and \\"", "a\\nb\\\\", "é\\u200b"] }}`,
      `["it's", 'say "hi"', 'both \\' and "', 'a\\nb\\\\', 'é\\u200b']`,
    ],
    [
      '{{ [0.1, 100000000000000000000.0, 0.00001, -0.0, 2 ** 70] }}',
      '[0.1, 1e+20, 1e-05, -0.0, 1180591620717411303424]',
    ],
    [
      "{{ {'items': 1, 'get': 2}.items()|list }} {{ {'items': 1}.items }} {{ {'a': 1}.get('b', 'c') }}",
      "[('items', 1), ('get', 2)] 1 c",
    ],
    [
      '{% set d = {1: "a", 2: "b"} %}{{ d[1] }}{{ 2 in d }}{{ d|dictsort }}{{ d.get(3) }}',
      "aTrue[(1, 'a'), (2, 'b')]None",
    ],
    [
      '{% for a, b in [(1, 2), [3, 4]] %}{{ a + b }}{% endfor %}{% for k in {"x": 1} %}{{ k }}{% endfor %}{% for c in "ab" %}{{ c }},{% endfor %}',
      '37xa,b,',
    ],
    ['{% for x in missing %}a{% else %}none{% endfor %}{{ missing|trim }}{{ missing|length }}', 'none0'],
    [
      "{{ -7 % 3 }} {{ 7 % -3 }} {{ 'ab' * 2 }} {{ [1] * 2 }} {{ 'b' > 'a' }} {{ [1, 2] == [1, 2] }} {{ 1 == true }}",
      '2 -2 abab [1, 1] True True True',
    ],
    [
      "{{ ['b', 'a']|sort|first }}{{ [3, 1]|min }}{{ [3, 1]|max }}{{ []|first is defined }}{{ 'ab'|last }}",
      'a13Falseb',
    ],
    [
      "{{ ['a']|map('upper')|list }}{{ [1, 2, 3]|select('odd')|list }}{{ [1, none]|reject('none')|list }}",
      "['A'][1, 3][1]",
    ],
    ["{{ [{'a': {'b': 1}}, {}]|map(attribute='a.b', default='-')|list }}", "[1, '-']"],
    [
      "{{ [{'a': 1}, {'b': 2}]|selectattr('a', 'undefined')|list }}{{ [{'a': 1}]|rejectattr('a')|list }}",
      "[{'b': 2}][]",
    ],
    ["{{ 'a{}c{x}{{'.format('b', x=1) }} {{ '{1}{0}'.format('a', 'b') }} {{ ','.join(['a', 1]) }}", 'abc1{ ba a,1'],
    [
      "{{ 'a b c'.rsplit(' ', 1) }}{{ 'aXbXc'.split('X', 1) }}{{ 'a\\nb'.splitlines() }}{{ 'abca'.count('a') }}{{ 'abc'.find('c') }}",
      "['a b', 'c']['a', 'bXc']['a', 'b']22",
    ],
    [
      "{{ 'x'.startswith(('a', 'x')) }} {{ 'file.py'.endswith('.py') }} {{ '12'.isdigit() }} {{ 'hello world'|title }} {{ 'aB'|capitalize }}",
      'True True True Hello World Ab',
    ],
    ["{{ {'b': 1, 'a': [1, {}]}|tojson(indent=2, sort_keys=true) }}", '{\n  "a": [\n    1,\n    {}\n  ],\n  "b": 1\n}'],
    [
      "{{ 'é<'|tojson }} {{ 'é'|tojson(ensure_ascii=true) }} {{ [1, 2]|tojson(separators=(',', ':')) }} {{ missing|tojson }}",
      '"é<" "\\u00e9" [1,2] null',
    ],
    [
      "{{ 'x' if false }}{{ missing or 'or' }}{{ missing|default('d') }}{{ ''|d('e', true) }}{{ dict(a=1) }}",
      "orde{'a': 1}",
    ],
    ['{% set ns = namespace(n=0) %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% endfor %}{{ ns.n }}', '3'],
    [
      "{% macro f(a, b='x') %}{{ a }}{{ b }}{% for k in kwargs %}{{ kwargs[k] }}{% endfor %}{% endmacro %}{{ f(1, c=2) }}",
      '1x2',
    ],
    ['{% generation %}a{% endgeneration %}{# comment #}{%- if true -%} b {%- endif -%}', 'ab'],
    [
      "{{ '😀a'|length }} {{ 'a😀b'[1:2] }} {{ 'abc'[::-1] }} {{ [1, 2, 3][-1] }} {{ 'ab'|reverse }} {{ [1, 2]|reverse|list }}",
      '2 😀 cba 3 ba [2, 1]',
    ],
    [
      "{{ ['b', 'a', 'b']|unique|list }} {{ [[1], [1], 2]|unique|list }} {{ {'b': 1, 'a': 2}|items|list }}",
      "['b', 'a'] [[1], 2] [('b', 1), ('a', 2)]",
    ],
    [
      "{{ 'a\\n\\nb'|indent(2) }}|{{ 'a\\nb'|indent('> ', true) }}|{{ 'aXbX'|replace('X', '-', 1) }}|{{ 'ab'.replace('', '.') }}",
      'a\n\n  b|> a\n> b|a-bX|.a.b.',
    ],
  ];
  it.each(cases)('%s', (source, expected) => {
    expect(parse(source).render(hello)).toBe(expected);
  });
});
