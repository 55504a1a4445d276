/*
 * The entry for require(). Node loads ES modules by require() itself from 20.19 on, so there is one copy of every class in
 * both worlds; a file of ours in between keeps a warning of some releases (22.12) away, which they show for callers outside
 * node_modules only.
 */
// biome-ignore lint/suspicious/noTsIgnore: it is an error only in projects that use this file with `module: node16`
/** @ts-ignore require() of an ES module */
import engine = require('./index.js');

export = engine;
