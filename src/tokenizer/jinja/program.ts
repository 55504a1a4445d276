import { EngineError } from '../../base/errors.js';
import { Budget, templateLimits } from './budget.js';
import { type Node, parse, tokenize } from './library.js';

/** A parsed template, made ready for the interpreter. */
export interface Program {
  readonly root: Node;
  /** Expressions whose value is written to the output. */
  readonly outputs: ReadonlySet<Node>;
  /** Texts that stand in expressions: what the template looks for and compares with. */
  readonly literals: readonly string[];
}

/** Fields that hold statements, whose values are written out one after the other. */
const statementFields = ['body', 'alternate', 'defaultBlock'] as const;
const statementTypes: ReadonlySet<string> = new Set(
  'StringLiteral Comment Set If For Macro CallStatement FilterStatement Break Continue'.split(' '),
);

/**
 * Parses the text of a template as transformers does: one line break after a block and the spaces before it in its line
 * are not part of the output. Throws CHAT_TEMPLATE_INVALID and CHAT_TEMPLATE_LIMIT.
 */
export function parseTemplate(source: string, path: string): Program {
  const budget = new Budget(path);
  const { sourceLength, whiteSpaceRun } = templateLimits;
  if (source.length > sourceLength) throw budget.exceeds('sourceLength', 'characters of template');
  if (new RegExp(`\\s{${whiteSpaceRun + 1}}`).test(source)) {
    throw budget.exceeds('whiteSpaceRun', 'characters of white space in a row');
  }
  const invalid = (problem: string, cause?: unknown) =>
    new EngineError('CHAT_TEMPLATE_INVALID', { path, problem }, { cause });
  try {
    return prepare(parse(tokenize(source, { trim_blocks: true, lstrip_blocks: true })));
  } catch (error) {
    if (error instanceof RangeError) throw budget.exceeds('depth', 'nested expressions, blocks and macros');
    // At the end of its tokens the parser runs into what is not there.
    const problem = error instanceof TypeError ? 'it ends in the middle of a statement' : (error as Error).message;
    throw invalid(problem, error);
  }
}

function prepare(root: Node): Program {
  const outputs = new Set<Node>();
  const literals = new Set<string>();
  const texts = new Set<unknown>();
  const Block = root.constructor as new (body: unknown) => Node;

  const visit = (part: unknown): void => {
    if (Array.isArray(part)) for (const child of part) visit(child);
    else if (part instanceof Map) visit([...part.keys(), ...part.values()]);
    else if (isNode(part)) visitNode(part);
  };
  const visitNode = (node: Node & Record<string, unknown>): void => {
    if (node.type === 'StringLiteral' && !texts.has(node)) literals.add(node.value as string);
    for (const field of statementFields) {
      const statements = node[field];
      for (const statement of Array.isArray(statements) ? (statements as Node[]) : []) {
        if (statement.type === 'StringLiteral') texts.add(statement);
        if (!statementTypes.has(statement.type)) outputs.add(statement);
      }
    }
    for (const child of Object.values(node)) visit(child);
    // An iteration has a scope of its own: what it sets is gone in the next one.
    if (node.type === 'For') node.body = [new Block(node.body)];
  };
  visit(root);
  return { root, outputs, literals: [...literals] };
}

function isNode(part: unknown): part is Node & Record<string, unknown> {
  return typeof part === 'object' && part !== null && typeof (part as Partial<Node>).type === 'string';
}
