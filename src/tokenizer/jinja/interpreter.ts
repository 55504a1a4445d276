import { Arguments } from './arguments.js';
import type { Budget } from './budget.js';
import { filterNamed } from './filters.js';
import { Environment, Interpreter, type Node, type Scope, type Value } from './library.js';
import { elements } from './list-filters.js';
import { methodOf } from './methods.js';
import { operate } from './operators.js';
import type { Program } from './program.js';
import { printed } from './python-text.js';
import { testNamed } from './tests.js';
import {
  boolean,
  callable,
  dictionary,
  isDictionary,
  isList,
  isNone,
  isText,
  isUndefined,
  type Key,
  keyOf,
  list,
  text,
  tuple,
  typeName,
  undefinedValue,
} from './values.js';

/** Nodes with the fields that are read here. */
interface Fields extends Node {
  readonly value: unknown;
  readonly args: readonly Node[];
  readonly body: readonly Node[];
  readonly [child: string]: unknown;
}

/** A node whose value is known: the library evaluates the operation on it, not the operand once more. */
interface Known extends Node {
  readonly type: 'Known';
  readonly known: Value;
}

const known = (value: Value): Known => ({ type: 'Known', known: value });

/**
 * The library's interpreter within a budget, and closer to Python.
 *
 * The library evaluates every expression, block and macro call by `evaluate`, so this is where steps and depth are
 * counted and sizes of values are checked. Operations that can cost more than their operands are large (repetition,
 * JSON of a list that holds a list many times over, replacement, ranges) are computed here and not in the library, each
 * within the budget; so are those where the library's result is not Python's.
 */
export class TemplateInterpreter extends Interpreter {
  readonly #program: Program;
  readonly #budget: Budget;

  constructor(program: Program, global: Scope, budget: Budget) {
    super(global);
    this.#program = program;
    this.#budget = budget;
  }

  render(): string {
    return printed(this.evaluate(this.#program.root, this.global), this.#budget);
  }

  override evaluate(node: Node | undefined, scope: Scope): Value {
    if (node === undefined) return undefinedValue();
    if (node.type === 'Known') return (node as Known).known;
    this.#budget.enter();
    try {
      const value = this.#evaluate(node as Fields, scope) ?? undefinedValue();
      if (isText(value)) this.#budget.passText(value.value.length);
      else if (isList(value)) this.#budget.passList(value.value.length);
      else if (isDictionary(value)) this.#budget.passList(value.value.size);
      return this.#program.outputs.has(node) && !isText(value) ? text(printed(value, this.#budget)) : value;
    } finally {
      this.#budget.leave();
    }
  }

  #evaluate(node: Fields, scope: Scope): Value | undefined {
    switch (node.type) {
      case 'Program':
        return super.evaluate(node, node === this.#program.root ? scope : new Environment(scope));
      case 'For':
        return this.#loop(node, scope);
      case 'BinaryExpression':
        return this.#operation(node, scope);
      case 'FilterExpression':
        return this.#filtered(this.evaluate(node.operand as Node, scope), node.filter as Fields, scope);
      case 'FilterStatement': {
        const block: Node & { body: unknown } = { type: 'Program', body: node.body };
        return this.#filtered(this.evaluate(block, scope), node.filter as Fields, scope);
      }
      case 'TestExpression': {
        const holds = testNamed((node.test as Fields).value as string)(
          this.evaluate(node.operand as Node, scope),
          [],
          this.#budget,
        );
        return boolean(holds !== node.negate);
      }
      case 'CallExpression':
        return this.#call(node, scope);
      case 'MemberExpression':
        return this.#member(node, this.evaluate(node.object as Node, scope), scope);
      case 'TupleLiteral':
        return tuple((node.value as readonly Node[]).map((element) => this.evaluate(element, scope)));
      case 'ObjectLiteral':
        return this.#dictionary(node.value as ReadonlyMap<Node, Node>, scope);
      default:
        return super.evaluate(node, scope);
    }
  }

  #loop(node: Fields, scope: Scope): Value {
    const iterable = node.iterable as Fields;
    const isFiltered = iterable.type === 'SelectExpression'; // for x in list if condition
    const source = this.evaluate(isFiltered ? (iterable.lhs as Node) : iterable, scope);
    const values = elements(source, this.#budget);
    this.#budget.iterate(values.length);
    const ready = known(list(values));
    const loop = { ...node, iterable: isFiltered ? { ...iterable, lhs: ready } : ready };
    return super.evaluate(loop, scope);
  }

  #operation(node: Fields, scope: Scope): Value {
    const operator = (node.operator as { readonly value: string }).value;
    if (operator === 'and' || operator === 'or') return super.evaluate(node, scope);
    const left = this.evaluate(node.left as Node, scope);
    const right = this.evaluate(node.right as Node, scope);
    const value = operate(operator, left, right, this.#budget);
    if (value !== null) return value;
    const operation = { ...node, left: known(left), right: known(right) };
    return super.evaluate(operation, scope);
  }

  #filtered(operand: Value, filter: Fields, scope: Scope): Value {
    const name = (filter.type === 'Identifier' ? filter.value : (filter.callee as Fields).value) as string;
    const ours = filterNamed(name);
    if (ours !== undefined) return this.#apply(name, filter.args ?? [], scope, (args) => ours(operand, args));
    const expression: Node & Record<string, unknown> = { type: 'FilterExpression', operand: known(operand), filter };
    return super.evaluate(expression, scope);
  }

  /** Calls a function of ours; the library evaluates the arguments. */
  #apply(name: string, args: readonly Node[], scope: Scope, body: (args: Arguments) => Value): Value {
    const callee = known(callable((values) => body(new Arguments(name, values, this.#budget))));
    const call: Node & Record<string, unknown> = { type: 'CallExpression', callee, args };
    return super.evaluate(call, scope);
  }

  #call(node: Fields, scope: Scope): Value {
    const callee = node.callee as Fields;
    if (callee.type !== 'MemberExpression' || callee.computed) {
      const value = this.evaluate(callee, scope);
      if (isUndefined(value)) throw new Error(`${nameOf(callee)} is undefined`);
      const call = { ...node, callee: known(value) };
      return super.evaluate(call, scope);
    }
    const object = this.evaluate(callee.object as Node, scope);
    const name = (callee.property as Fields).value as string;
    // Before entries of this name: a schema may well have a property called "items".
    const method = methodOf(object, name);
    if (method !== undefined) return this.#apply(name, node.args, scope, method);
    const value = this.#member(callee, object, scope);
    if (isUndefined(value)) throw new Error(`${typeName(object)} has no method ${name}`);
    const call = { ...node, callee: known(value) };
    return super.evaluate(call, scope);
  }

  #member(node: Fields, object: Value, scope: Scope): Value {
    const property = node.property as Fields;
    if (isUndefined(object)) throw new Error(`${nameOf(node.object as Fields)} is undefined`);
    if (property.type === 'SliceExpression') {
      // The library takes a text apart into its characters.
      if (isText(object)) this.#budget.spend(object.value.length / 4);
      if (isList(object)) this.#budget.makeList(object.value.length);
    }
    if (!node.computed && String(property.value).startsWith('__')) {
      throw new Error(`access to the attribute ${String(property.value)} of ${typeName(object)} is not allowed`);
    }
    if (!node.computed || property.type === 'SliceExpression' || isNone(object)) {
      const member = { ...node, object: known(object) };
      return super.evaluate(member, scope);
    }
    const index = this.evaluate(property, scope);
    const key = keyOf(index);
    const entry = isDictionary(object) && key !== null ? object.value.get(key) : undefined;
    if (entry !== undefined) return entry;
    if (isDictionary(object) && !isText(index)) return undefinedValue();
    const member = { ...node, object: known(object), property: known(index) };
    return super.evaluate(member, scope);
  }

  #dictionary(entries: ReadonlyMap<Node, Node>, scope: Scope): Value {
    const values = new Map<Key, Value>();
    for (const [keyNode, valueNode] of entries) {
      const key = keyOf(this.evaluate(keyNode, scope));
      if (key === null) throw new Error('a key of a dict is neither str nor int');
      values.set(key, this.evaluate(valueNode, scope));
    }
    return dictionary(values);
  }
}

/** An expression in a message: "message.tool_calls". */
function nameOf(node: Fields): string {
  if (node.type === 'Identifier') return String(node.value);
  if (node.type !== 'MemberExpression') return 'a value';
  const { value } = node.property as Fields;
  return `${nameOf(node.object as Fields)}.${typeof value === 'object' ? '…' : String(value)}`;
}
