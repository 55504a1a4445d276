// Writes dist/index.cjs, the entry for require(). Node loads ES modules by require() itself (20.19 and later); a file of
// our own in between keeps its warning about that away from users, as it is only shown for code outside node_modules.
import { writeFileSync } from 'node:fs';

writeFileSync(
  new URL('../dist/index.cjs', import.meta.url),
  "'use strict';\nmodule.exports = require('./index.js');\n",
);
