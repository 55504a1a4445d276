import { EngineError } from '../../src/base/errors.js';

/** The error that a promise fails with; anything but an EngineError is thrown on. */
export async function failure(promise: Promise<unknown>): Promise<EngineError> {
  try {
    await promise;
  } catch (error) {
    if (error instanceof EngineError) return error;
    throw error;
  }
  throw new Error('nothing was thrown');
}
