// Writes dist/index.cjs, the entry for require(). Node loads ES modules by require() itself from 20.19 on; a file of ours
// in between keeps a warning of some releases (22.12) away, which they show for callers outside node_modules only.
import { writeFileSync } from 'node:fs';

writeFileSync(
  new URL('../dist/index.cjs', import.meta.url),
  "'use strict';\nmodule.exports = require('./index.js');\n",
);
