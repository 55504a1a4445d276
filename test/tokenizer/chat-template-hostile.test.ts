import { describe, expect, it } from 'vitest';
import { EngineError, type ErrorCode } from '../../src/base/errors.js';
import { ChatTemplate } from '../../src/tokenizer/chat-template.js';

/** The outcome of a template: its text, or the code and message of its error; and the milliseconds of CPU it took. */
function outcome(source: string): { result: string; cpuMs: number } {
  const start = process.cpuUsage();
  let result: string;
  try {
    result = ChatTemplate.parse(source, {}, 'evil.gguf').render([{ role: 'user', content: 'hi' }]);
  } catch (error) {
    if (!(error instanceof EngineError)) throw error;
    result = `[${error.code}] ${error.message}`;
  }
  const { user, system } = process.cpuUsage(start);
  return { result, cpuMs: (user + system) / 1000 };
}

/** A list that holds a list twice that holds a list twice …: 2^60 elements in 60 lists. */
const dag = (name: string) =>
  `{% set ns = namespace(${name}=[1]) %}{% for i in range(60) %}{% set ns.${name} = [ns.${name}, ns.${name}] %}{% endfor %}`;
const big = "{% set x = 'a' * 4000000 %}";
const often = (body: string) => `{% for i in range(60000) %}${body}{% endfor %}`;
const nested = (open: string, close: string, depth: number) => open.repeat(depth) + close.repeat(depth);

const expensive: Record<string, string> = {
  'nested loops': often(often('x')),
  'three nested loops': nested('{% for a in range(1000) %}', '{% endfor %}', 3),
  'a range': '{{ range(10**9) }}',
  'a range downwards': '{{ range(0, -10**9, -1)|length }}',
  'a macro that calls itself': '{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}',
  'a macro that calls itself twice':
    '{% macro f(n) %}{% if n %}{{ f(n-1) }}{{ f(n-1) }}{% endif %}{% endmacro %}{{ f(40) }}',
  'a call block that calls itself':
    '{% macro f() %}{% call f() %}x{% endcall %}{{ caller() }}{% endmacro %}{% call f() %}y{% endcall %}',
  'a text that doubles': `{% set x = 'aaaa' %}${'{% set x = x + x %}'.repeat(60)}{{ x }}`,
  'a text in a namespace that doubles': `{% set ns = namespace(x='a') %}${often('{% set ns.x = ns.x ~ ns.x %}')}`,
  'a block that doubles': `{% set ns = namespace(x='a') %}${often('{% set y %}{{ ns.x }}{{ ns.x }}{% endset %}{% set ns.x = y %}')}`,
  'a repeated text': "{{ 'a' * 10**9 }}",
  'repeated long texts': often("{% set x = 'a' * 4000000 %}"),
  'a replacement that squares': `${big}{{ x|replace('a', x) }}`,
  'many replacements': big + often("{% set y = x.replace('a', 'b') %}"),
  'a split into millions': `${big}{{ x.split('a')|length }}`,
  'a search that is quadratic': `${big}{% set y = 'b' ~ ('a' * 2000000) %}{{ y in x }}`,
  'JSON of shared lists': `${dag('x')}{{ ns.x|tojson }}`,
  'the text of shared lists': `${dag('x')}{{ ns.x }}`,
  'joined shared lists': `${dag('x')}{{ ns.x|join }}`,
  'compared shared lists': `${dag('x')}${dag('y').replace('namespace(', 'namespace(x=ns.x, ')}{{ ns.x == ns.y }}`,
  'an indentation': "{{ 'a'|indent(10**9) }}",
  'an indentation of JSON': '{{ [1]|tojson(indent=10**9) }}',
  'a list that doubles': `{% set ns = namespace(x=[1]) %}${often('{% set ns.x = ns.x + ns.x %}')}`,
  'a list that keeps lists': `{% set ns = namespace(x=[]) %}${often('{% set ns.x = [ns.x, range(60000)] %}')}`,
  'sorted again and again': `{% set x = range(60000) %}${often('{% set y = x|sort(reverse=true) %}')}`,
  'long argument lists': `{% macro f() %}{{ varargs }}{% endmacro %}{% set x = range(60000) %}${often('{{ f(*x) }}')}`,
  'cut texts': big + often('{% set y = x[1:] %}'),
  titles: big + often('{% set y = x|title %}'),
  'a loop over the characters of a long text': `${big}{% for c in x %}{% endfor %}`,
  'a long output': often(`{{ '${'a'.repeat(200)}' }}`),
  'nested parentheses': `{{ ${'('.repeat(50000)}1${')'.repeat(50000)} }}`,
  'nested lists': `{{ ${nested('[', ']', 50000)} }}`,
  'a long sum': `{{ ${'1 + '.repeat(60000)}1 }}`,
  'nested conditions': `${nested('{% if 1 %}', '{% endif %}', 10000)}`,
  'nested loops in the text': nested('{% for a in [1] %}', '{% endfor %}', 500),
  'a long template': 'a'.repeat(300_000),
  'white space that the lexer is slow with': `x${' '.repeat(200_000)}{{ x }}`,
};

describe('a template that costs too much ends with CHAT_TEMPLATE_LIMIT within a second or so', () => {
  it.each(Object.entries(expensive))('%s', (_, source) => {
    const { result, cpuMs } = outcome(source);
    expect(result).toMatch(/^\[CHAT_TEMPLATE_LIMIT\] evil\.gguf: .* exceeds \d+ [a-z, ]+;/);
    expect(cpuMs).toBeLessThan(2500); // about 1 s at most; more for the noise of busy machines
  });
});

describe('a template gets at nothing but what it is given', () => {
  const cases: [source: string, code: ErrorCode, message: RegExp][] = [
    ["{{ ''.__class__.__mro__ }}", 'CHAT_TEMPLATE_INVALID', /__class__ of str is not allowed/],
    ['{{ messages.__proto__ }}', 'CHAT_TEMPLATE_INVALID', /__proto__ of list is not allowed/],
    ['{{ raise_exception.__globals__ }}', 'CHAT_TEMPLATE_INVALID', /__globals__ of function is not allowed/],
    ["{{ messages.constructor.constructor('x')() }}", 'CHAT_TEMPLATE_INVALID', /messages.constructor is undefined/],
    ["{{ range.constructor('return 1')() }}", 'CHAT_TEMPLATE_INVALID', /function has no method constructor/],
    ['{{ messages.append(1) }}', 'CHAT_TEMPLATE_INVALID', /list has no method append/],
    ["{{ messages[0].update({'role': 'x'}) }}", 'CHAT_TEMPLATE_INVALID', /dict has no method update/],
    ["{% set messages[0].role = 'x' %}", 'CHAT_TEMPLATE_INVALID', /assign/],
    ["{% include '/etc/passwd' %}", 'CHAT_TEMPLATE_INVALID', /include/],
    ["{% import 'os' as os %}", 'CHAT_TEMPLATE_INVALID', /import/],
    ['{{ foo.bar }}', 'CHAT_TEMPLATE_INVALID', /foo is undefined/],
    ['{{ foo() }}', 'CHAT_TEMPLATE_INVALID', /foo is undefined/],
  ];
  it.each(cases)('%s', (source, code, message) => {
    const { result } = outcome(source);
    expect(result).toContain(`[${code}] evil.gguf`);
    expect(result).toMatch(message);
  });

  it('also not by subscript', () => {
    expect(outcome("{{ messages['__proto__'] }}{{ messages[0]['constructor'] }}").result).toBe('');
  });
});

describe('a template that is none ends with CHAT_TEMPLATE_INVALID:', () => {
  const broken = [
    '{% if x %}',
    '{% for x in y %}',
    '{{ x',
    "{{ 'a",
    '{{ [1, ',
    '{{ f(1, ',
    '{% set x %}a',
    '{% macro f() %}',
  ];
  it.each([
    ...broken,
    '{% if',
    '{# a',
    '{{ 1 +* 2 }}',
    '{% endif %}',
    '{% frobnicate %}',
    '{{ 1|frob }}',
    '{{ 1 is frob }}',
  ])('%s', (source) => {
    expect(outcome(source).result).toMatch(
      /^\[CHAT_TEMPLATE_INVALID\] evil\.gguf: the chat template cannot be used: \S+ /,
    );
  });

  it('a break outside of a loop', () => {
    expect(outcome('{% break %}').result).toContain('outside of a loop');
  });
});
