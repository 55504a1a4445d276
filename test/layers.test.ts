import { readdirSync, readFileSync, statSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';

const src = fileURLToPath(new URL('../src', import.meta.url));

/** Which rooms each room may see besides itself (docs/structure.md). Arrows point down; siblings do not see each other. */
const mayImport: Record<string, readonly string[]> = {
  base: [],
  tensor: ['base'],
  tokenizer: ['base'],
  formats: ['tensor', 'base'],
  quantization: ['tensor', 'base'],
  backend: ['quantization', 'tensor', 'base'],
  model: ['backend', 'formats', 'tokenizer', 'tensor', 'base'],
  engine: ['backend', 'base'],
  serving: ['engine', 'tokenizer', 'base'],
  server: ['serving', 'base'],
  playground: [],
  library: ['serving', 'engine', 'model', 'backend', 'formats', 'tokenizer', 'tensor', 'base'],
  synthetic: ['formats', 'tokenizer', 'tensor', 'base'],
  conversion: ['model', 'backend', 'formats', 'tokenizer', 'quantization', 'tensor', 'base'],
  evaluation: ['library', 'serving', 'engine', 'model', 'backend', 'formats', 'tokenizer', 'tensor', 'base'],
  benchmark: ['evaluation', 'library', 'serving', 'model', 'backend', 'formats', 'tensor', 'base'],
  cli: [
    'server',
    'benchmark',
    'synthetic',
    'conversion',
    'evaluation',
    'library',
    'serving',
    'engine',
    'model',
    'backend',
    'formats',
    'tokenizer',
    'tensor',
    'base',
  ],
};

function sources(folder: string): string[] {
  return readdirSync(folder).flatMap((name) => {
    const path = join(folder, name);
    return statSync(path).isDirectory() ? sources(path) : path.endsWith('.ts') ? [path] : [];
  });
}

function importsOf(path: string): string[] {
  const text = readFileSync(path, 'utf8');
  return [...text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)].map(([, specifier]) => specifier!);
}

/** The room of a file under src, or null for src/index.ts. */
function roomOf(path: string): string | null {
  const parts = relative(src, path).split('/');
  return parts.length > 1 ? parts[0]! : null;
}

const files = sources(src);

describe('the layers', () => {
  it('have a rule for every room', () => {
    const rooms = new Set(files.map(roomOf).filter((room) => room !== null));
    for (const room of rooms) expect(mayImport, `room ${room}`).toHaveProperty(room);
  });

  it('import only what lies below them', () => {
    const wrong: string[] = [];
    for (const file of files) {
      const room = roomOf(file);
      for (const specifier of importsOf(file)) {
        if (!specifier.startsWith('.')) continue;
        const target = roomOf(resolve(dirname(file), specifier));
        const allowed = room === null || target === room || (target !== null && mayImport[room]!.includes(target));
        if (!allowed) wrong.push(`${relative(src, file)} imports ${specifier}`);
      }
    }
    expect(wrong).toEqual([]);
  });

  it('keep the public entry to re-exports', () => {
    const lines = readFileSync(join(src, 'index.ts'), 'utf8').split('\n');
    const code = lines.filter((line) => line.trim() !== '' && !/^\s*(\/\/|\/?\*)/.test(line)).join('\n');
    expect(code.replace(/export (type )?\{[^}]*\} from '[^']+';\n?/g, '').trim()).toBe('');
  });

  it('load the native binary in one place', () => {
    const loaders = files
      .filter((file) => /\.node['"`]/.test(readFileSync(file, 'utf8')))
      .map((file) => relative(src, file));
    expect(loaders.filter((file) => !file.startsWith('backend/native'))).toEqual([]);
  });
});
