import { nativeInfo } from '../../src/backend/native.js';

const info = nativeInfo();

/** For a test's name: why tests of the native backend are skipped; null where they run. */
export const notBuilt = info.binary === null ? ' (skipped: no addon can be loaded, run npm run build:native)' : null;

/** Instruction sets of this machine, lowest first; one name for the tests to be skipped if the addon is not built. */
export const isas = info.isas.length > 0 ? info.isas : ['scalar'];
