import { expect } from 'vitest';
import { EngineError, type ErrorCode } from '../../src/base/errors.js';

/** Asserts that `action` throws an EngineError of this code whose one-line message contains all of `parts`. */
export async function expectEngineError(
  action: () => unknown,
  code: ErrorCode,
  ...parts: readonly string[]
): Promise<void> {
  let thrown: unknown;
  try {
    await action();
  } catch (error) {
    thrown = error;
  }
  expect(thrown, 'what was thrown').toBeInstanceOf(EngineError);
  const { code: actual, message } = thrown as EngineError;
  expect({ code: actual, message }).toMatchObject({ code });
  for (const part of parts) expect(message).toContain(part);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they must not be there
  expect(message).not.toMatch(/[\u0000-\u001f\u007f-\u009f]/);
}
