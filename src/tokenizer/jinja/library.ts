import * as jinja from '@huggingface/jinja';

/**
 * The part of @huggingface/jinja that is used here. Its own type declarations import their siblings without file
 * extensions, which resolves to `any` in an ES module; so the types are stated, and this is the one place that
 * believes them.
 */

/** A node of the syntax tree. Parents hold their children in fields, lists and, for literals, maps. */
export interface Node {
  readonly type: string;
}

/** A value of the template language; `value` is what it is in JavaScript. */
export interface Value {
  readonly type: string;
  readonly value: unknown;
  readonly builtins: ReadonlyMap<string, Value>;
  /** Whether Python calls it true. */
  __bool__(): { readonly value: boolean };
}

export type FunctionBody = (args: readonly Value[], scope: Scope) => Value;

export interface Scope {
  /** Declares a variable and returns its value, made from any JavaScript value. Throws if it exists in this scope. */
  set(name: string, value: unknown): Value;
  setVariable(name: string, value: Value): Value;
  lookupVariable(name: string): Value;
}

export interface Evaluator {
  readonly global: Scope;
  evaluate(node: Node | undefined, scope: Scope): Value;
}

/** Lexer options, named as in Jinja. */
interface LexerOptions {
  readonly trim_blocks: boolean;
  readonly lstrip_blocks: boolean;
}

export const { Environment, Interpreter, parse, tokenize } = jinja as unknown as {
  readonly Environment: new (parent?: Scope) => Scope;
  readonly Interpreter: new (global: Scope) => Evaluator;
  readonly parse: (tokens: unknown) => Node;
  readonly tokenize: (source: string, options: LexerOptions) => unknown;
};
