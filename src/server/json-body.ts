import type { FastifyInstance } from 'fastify';
import { EngineError } from '../base/errors.js';

/**
 * Bodies are JSON and nothing else: forms and plain text are what a web page may send to any server without being asked
 * (no preflight), so they are refused. `__proto__` and `constructor.prototype` are left out.
 */
export function acceptJsonOnly(app: FastifyInstance, depth: number): void {
  const parse = app.getDefaultJsonParser('remove', 'remove');
  app.removeAllContentTypeParsers();
  app.addContentTypeParser<string>('application/json', { parseAs: 'string' }, (request, body, done) => {
    if (body.trim() === '') return done(new EngineError('BODY_INVALID', { problem: 'is empty' }));
    if (depthExceeds(body, depth)) {
      return done(new EngineError('BODY_INVALID', { problem: `nests lists and objects more than ${depth} deep` }));
    }
    return parse(request, body, (error, value) => {
      if (error === null) done(null, value);
      else done(new EngineError('BODY_INVALID', { problem: `is not JSON (${error.message.slice(0, 120)})` }));
    });
  });
}

const [QUOTE, BACKSLASH, OPEN_LIST, CLOSE_LIST, OPEN_OBJECT, CLOSE_OBJECT] = [...'"\\[]{}'].map((c) => c.charCodeAt(0));

/** Whether brackets outside of strings nest deeper than this; whether they match is the parser's business. */
function depthExceeds(text: string, limit: number): boolean {
  let depth = 0;
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i);
    if (code === QUOTE) i = endOfString(text, i);
    else if (code === OPEN_LIST || code === OPEN_OBJECT) {
      if (++depth > limit) return true;
    } else if (code === CLOSE_LIST || code === CLOSE_OBJECT) depth--;
  }
  return false;
}

/** Index of the quote that ends the string that begins at `start`, or the text's length. */
function endOfString(text: string, start: number): number {
  for (let end = text.indexOf('"', start + 1); end >= 0; end = text.indexOf('"', end + 1)) {
    let backslashes = 0;
    while (text.charCodeAt(end - 1 - backslashes) === BACKSLASH) backslashes++;
    if (backslashes % 2 === 0) return end;
  }
  return text.length;
}
