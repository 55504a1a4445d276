import { EngineError } from '../../base/errors.js';
import { Budget } from './budget.js';
import { globalScope } from './globals.js';
import { TemplateInterpreter } from './interpreter.js';
import { Environment } from './library.js';
import type { Program } from './program.js';

/**
 * The output of a template for these variables, which may be any JSON. Throws CHAT_TEMPLATE_LIMIT where it costs too
 * much, CHAT_TEMPLATE_REFUSED with what the template gives to `raise_exception`, and CHAT_TEMPLATE_INVALID for all else.
 *
 * @param path of the template, for messages
 * @param now  what `strftime_now` writes
 */
export function renderTemplate(
  program: Program,
  variables: Readonly<Record<string, unknown>>,
  path: string,
  now: Date = new Date(),
): string {
  const budget = new Budget(path);
  try {
    const scope = new Environment(globalScope(budget, now));
    for (const [name, value] of Object.entries(variables)) scope.set(name, value);
    return new TemplateInterpreter(program, scope, budget).render();
  } catch (error) {
    if (error instanceof EngineError) throw error;
    if (error instanceof RangeError) {
      throw /string/i.test(error.message)
        ? budget.exceeds('textLength', 'characters of text')
        : budget.exceeds('depth', 'nested expressions, blocks and macros');
    }
    // The library leaves a loop by an error without a message.
    const problem = (error as Error).message || 'a break or continue stands outside of a loop';
    throw new EngineError('CHAT_TEMPLATE_INVALID', { path, problem }, { cause: error });
  }
}
