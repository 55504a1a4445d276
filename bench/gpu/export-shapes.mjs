// Writes bench/gpu/shapes.json from src/synthetic/shapes.ts: `npm run build:ts && node bench/gpu/export-shapes.mjs`. The
// file is in the repository because a machine with a GPU may have no Node.js; a test compares it with the source.
import { writeFileSync } from 'node:fs';
import { fileURLToPath, pathToFileURL } from 'node:url';

/**
 * The text of shapes.json.
 * @param {Record<string, object>} shapes
 */
export function shapesJson(shapes) {
  return `${JSON.stringify(shapes, null, 2)}\n`;
}

if (process.argv[1] !== undefined && import.meta.url === pathToFileURL(process.argv[1]).href) {
  const { llamaShapes } = await import(new URL('../../dist/synthetic/shapes.js', import.meta.url));
  writeFileSync(fileURLToPath(new URL('shapes.json', import.meta.url)), shapesJson(llamaShapes));
}
