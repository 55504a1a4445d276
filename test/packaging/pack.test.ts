import { execFileSync } from 'node:child_process';
import { expect, it } from 'vitest';
import { root } from './consumer.js';

/** Everything the package may contain; each pattern is there for a reason and matches at least one file. */
const patterns: Record<string, RegExp> = {
  'for npm': /^package\.json$/,
  'to read': /^(README\.md|docs\/.+\.(md|mjs))$/,
  licence: /^LICENSE$/,
  'the program': /^dist\/.+\.js$/,
  'the playground': /^dist\/playground\/[a-z]+\.(html|css|svg)$/,
  'the entry for require()': /^dist\/index\.(cjs|d\.cts)$/,
  'its types': /^dist\/.+\.d\.ts$/,
  'embedded models': /^models\/(README\.md|[^/]+\.gguf)$/,
  'what engine bench peers runs': /^bench\/peers\/(node-llama-cpp\.mjs|package(-lock)?\.json)$/,
  'installation scripts': /^scripts\/(install|native-sources)\.mjs$/,
  'build files of the addon':
    /^(binding\.gyp|CMakeLists\.txt|(native|native\/cuda|kernels\/cpu)\/CMakeLists\.txt|native\/engine\.map)$/,
  'sources of the addon': /^(native|native\/cuda|kernels\/[a-z]+)\/[^/]+\.(cc|h|inc|cu|cuh)$/,
};
/** There only where `npm run build:prebuild` ran. */
const prebuilt = /^prebuilds\/[a-z0-9-]+\/engine\.node$/;
const required = [
  'LICENSE',
  'README.md',
  'dist/cli/main.js',
  'dist/backend/reference-worker.js',
  'models/fable-q8_0.gguf',
];

it('the package holds what it must and nothing else', () => {
  // Without scripts, since prepack compiles dist/ afresh under the feet of other tests.
  const args = ['pack', '--dry-run', '--json', '--ignore-scripts'];
  const output = execFileSync('npm', args, { cwd: root, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  const [{ files }] = JSON.parse(output) as [{ files: { path: string }[] }];
  const paths = files.map(({ path }) => path);
  const all = [...Object.values(patterns), prebuilt];
  expect(paths.filter((path) => !all.some((pattern) => pattern.test(path)))).toEqual([]);
  expect(paths).toEqual(expect.arrayContaining(required));
  for (const [what, pattern] of Object.entries(patterns)) {
    expect(
      paths.some((path) => pattern.test(path)),
      what,
    ).toBe(true);
  }
});
