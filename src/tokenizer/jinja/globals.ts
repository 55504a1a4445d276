import { EngineError } from '../../base/errors.js';
import { Arguments } from './arguments.js';
import { type Budget, templateLimits } from './budget.js';
import { Environment, type Scope, type Value } from './library.js';
import { printed } from './python-text.js';
import { strftime } from './strftime.js';
import { boolean, callable, dictionary, integer, isDictionary, type Key, list, none, text } from './values.js';

/** The scope that every template starts with: what transformers gives to chat templates, and no more. */
export function globalScope(budget: Budget, now: Date): Scope {
  const scope = new Environment();
  const define = (name: string, body: (args: Arguments) => Value) =>
    scope.setVariable(
      name,
      callable((args) => body(new Arguments(name, args, budget))),
    );
  for (const [name, value] of [
    ['true', boolean(true)],
    ['false', boolean(false)],
    ['none', none()],
  ] as const) {
    scope.setVariable(name, value);
    scope.setVariable(name[0]!.toUpperCase() + name.slice(1), value);
  }
  define('range', range);
  define('dict', dict);
  define('strftime_now', (args) => text(strftime(now, args.text(0, 'format', '%c'))));
  define('raise_exception', (args) => {
    const reason = printed(args.at(0, 'message') ?? text(''), budget);
    throw new EngineError('CHAT_TEMPLATE_REFUSED', { path: budget.path, reason });
  });
  return scope;
}

function range(args: Arguments): Value {
  const isFrom = args.positional.length > 1;
  const start = isFrom ? args.count(0, '', 0) : 0;
  const stop = args.count(isFrom ? 1 : 0, '', 0);
  const step = args.count(2, '', 1);
  if (step === 0) throw new Error('the step of range is 0');
  const length = Math.max(0, Math.ceil((stop - start) / step));
  args.budget.makeList(Math.min(length, templateLimits.listLength + 1));
  return list(Array.from({ length }, (_, i) => integer(start + i * step)));
}

function dict(args: Arguments): Value {
  const [from] = args.positional;
  const entries = from !== undefined && isDictionary(from) ? from.value : new Map<Key, Value>();
  args.budget.makeList(entries.size);
  return dictionary(new Map([...entries, ...args.named]));
}
