import { EngineError } from '../../base/errors.js';

/**
 * What a template may cost. A step is one evaluated node, about 0.3 µs; whatever takes longer, or makes something that
 * has to be kept, counts as more steps. Real templates need some hundred steps a message.
 */
export const templateLimits = {
  /** UTF-16 units of the template; the largest known one has 17,000. */
  sourceLength: 1 << 18,
  /** White space in a row in the template: the lexer's time is quadratic in it. */
  whiteSpaceRun: 1 << 10,
  steps: 2_000_000,
  /** Nested expressions, blocks and macro calls. */
  depth: 300,
  /** UTF-16 units of any text, and so of the output: a million tokens. */
  textLength: 1 << 22,
  /** Elements of any list. */
  listLength: 1 << 16,
  /** Spaces of an indentation. */
  indentation: 256,
} as const;

/** Steps that an iteration of a loop costs besides its body: scopes and the `loop` variable. */
const STEPS_PER_ITERATION = 8;
/** UTF-16 units that are passed on, and that are read or written, in the time of a step. */
const UNITS_PASSED = 1 << 10;
const UNITS_WORKED = 1 << 5;
const UNITS_COMPARED = 1 << 13;
/** List elements that are passed on in the time of a step. */
const ELEMENTS_PASSED = 1 << 4;

/** Counts what one rendering of a template costs; every method throws CHAT_TEMPLATE_LIMIT where it is too much. */
export class Budget {
  #steps = 0;
  #depth = 0;

  /** @param path the file of the template, for messages */
  constructor(readonly path: string) {}

  spend(steps: number): void {
    this.#steps += steps;
    if (this.#steps > templateLimits.steps) throw this.exceeds('steps', 'steps');
  }

  /** Every `enter` is followed by a `leave`, also where an error passes. */
  enter(): void {
    this.spend(1);
    if (++this.#depth > templateLimits.depth) throw this.exceeds('depth', 'nested expressions, blocks and macros');
  }

  leave(): void {
    this.#depth--;
  }

  iterate(iterations: number): void {
    this.spend(STEPS_PER_ITERATION * iterations);
  }

  /** A text of this length is the value of an expression. */
  passText(length: number): void {
    if (length > templateLimits.textLength) throw this.exceeds('textLength', 'characters of text');
    this.spend(length / UNITS_PASSED);
  }

  /** A text of this length is searched or made. Call it before, so that nothing too large is made. */
  workOnText(length: number): void {
    if (length > templateLimits.textLength) throw this.exceeds('textLength', 'characters of text');
    this.spend(length / UNITS_WORKED);
  }

  /** A text is searched for another one; adversarial pairs make that slower than linear. */
  searchText(length: number, wanted: number): void {
    this.workOnText(length);
    this.spend((length * wanted) / UNITS_COMPARED);
  }

  passList(length: number): void {
    this.#checkList(length);
    this.spend(length / ELEMENTS_PASSED);
  }

  /** A list of this length is made. Call it before. */
  makeList(length: number): void {
    this.#checkList(length);
    this.spend(length);
  }

  /** A list gets one more element, which makes its length this. */
  growList(length: number): void {
    this.#checkList(length);
    this.spend(1);
  }

  #checkList(length: number): void {
    if (length > templateLimits.listLength) throw this.exceeds('listLength', 'elements of a list');
  }

  exceeds(limit: keyof typeof templateLimits, what: string): EngineError {
    return new EngineError('CHAT_TEMPLATE_LIMIT', { path: this.path, limit: templateLimits[limit], what });
  }
}
