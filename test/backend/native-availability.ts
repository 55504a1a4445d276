import { nativeInfo } from '../../src/backend/native.js';

const info = nativeInfo();

/** For a test's name: why tests of the native backend are skipped; null where they run. */
export const notBuilt =
  info.binary === null
    ? ` (skipped: the addon is not built, run npm run build:native; ${info.failures[0]?.path})`
    : null;

/** Instruction sets of this machine, lowest first; one name for the tests to be skipped if the addon is not built. */
export const isas = info.isas.length > 0 ? info.isas : ['scalar'];
