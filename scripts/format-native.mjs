// Checks (or with --write, fixes) the formatting of all native sources with the clang-format that npm installs.
import { execFileSync } from 'node:child_process';

const write = process.argv.includes('--write');
const files = execFileSync(
  'git',
  ['ls-files', '--cached', '--others', '--exclude-standard', 'native', 'kernels', 'test'],
  {
    encoding: 'utf8',
  },
)
  .split('\n')
  .filter((file) => /\.(h|cc|cu|inc)$/.test(file));
if (files.length > 0) {
  const flags = write ? ['-i'] : ['--dry-run', '--Werror'];
  execFileSync('npx', ['--no-install', 'clang-format', ...flags, ...files], { stdio: 'inherit' });
}
