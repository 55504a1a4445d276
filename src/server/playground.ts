import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { extname, join } from 'node:path';
import type { FastifyInstance } from 'fastify';
import { EngineError } from '../base/errors.js';
import { packageFile, packagePlaces } from '../base/package-files.js';

const mediaTypes: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.svg': 'image/svg+xml',
};

/**
 * Everything the page may load is this server's, nothing is inline, and no string can become markup or code, so what a
 * model or another site makes up cannot run here. Nobody may put the page into a frame.
 */
const policy = [
  "default-src 'none'",
  "script-src 'self'",
  "style-src 'self'",
  "img-src 'self'",
  "connect-src 'self'",
  "base-uri 'none'",
  "form-action 'none'",
  "frame-ancestors 'none'",
  "require-trusted-types-for 'script'",
  "trusted-types 'none'",
].join('; ');

const headers: Readonly<Record<string, string>> = {
  'content-security-policy': policy,
  'x-content-type-options': 'nosniff',
  'referrer-policy': 'no-referrer',
  'cross-origin-opener-policy': 'same-origin',
  'cross-origin-resource-policy': 'same-origin',
  'cache-control': 'no-cache', // asked again each time, answered with 304: a new version shows at once
};

/**
 * Serves the playground: `/` and `/playground/…`. The files are read here, once; a request only picks one of the routes
 * made for them, so no path of a request reaches the file system. Throws FILE_NOT_FOUND.
 */
export function playground(app: FastifyInstance): void {
  const folder = packageFile('dist/playground');
  if (folder === null) {
    const path = packagePlaces('dist/playground').join(' nor at ');
    throw new EngineError('FILE_NOT_FOUND', { what: 'the folder of the playground', path });
  }
  for (const name of readdirSync(folder)) {
    const type = mediaTypes[extname(name)];
    if (type === undefined) continue;
    const body = readFileSync(join(folder, name));
    const etag = `"${createHash('sha256').update(body).digest('base64url').slice(0, 22)}"`;
    const path = name === 'index.html' ? '/' : `/playground/${name}`;
    app.get(path, { config: { needsModel: false } }, (request, reply) => {
      void reply.headers({ ...headers, etag });
      const known = request.headers['if-none-match']?.split(/\s*,\s*/) ?? [];
      if (known.some((tag) => tag === '*' || tag.replace(/^W\//, '') === etag)) return reply.code(304).send();
      return reply.type(type).send(body);
    });
  }
}
