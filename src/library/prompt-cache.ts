import type { SessionLimits } from '../backend/backend.js';
import { EngineError } from '../base/errors.js';
import { preparePromptFolder } from '../engine/prompt-folder.js';
import type { SavedPromptsOptions } from '../engine/saved-prompts.js';
import type { LoadedModel } from '../model/load.js';
import { memoryPlan } from '../model/memory.js';
import type { LoadOptions } from './load-options.js';
import { modelFingerprint } from './model-fingerprint.js';

const DEFAULT_BYTES = 2 * 2 ** 30;

/** A folder that can be written to, and what it may hold. */
export interface PromptCacheFolder {
  readonly directory: string;
  /** Bytes. */
  readonly maxBytes: number;
}

/** The folder of these options; undefined if there is none. Throws OPTION_INVALID, FILE_UNWRITABLE. */
export function promptCacheFolder({
  promptCache,
  promptCacheBytes = DEFAULT_BYTES,
  prefixCache,
}: Pick<LoadOptions, 'promptCache' | 'promptCacheBytes' | 'prefixCache'>): PromptCacheFolder | undefined {
  const invalid = (option: string, value: unknown, expected: string) =>
    new EngineError('OPTION_INVALID', { option, value, expected });
  if (!Number.isSafeInteger(promptCacheBytes) || promptCacheBytes < 0) {
    throw invalid('promptCacheBytes', promptCacheBytes, 'a number of bytes');
  }
  if (promptCache === undefined) return undefined;
  if (typeof promptCache !== 'string' || promptCache === '') throw invalid('promptCache', promptCache, 'a folder');
  if (prefixCache === false) throw invalid('promptCache', promptCache, 'the prefix cache with it, which it feeds');
  return { directory: preparePromptFolder(promptCache), maxBytes: promptCacheBytes };
}

/** What the engine loop needs to know of the folder for this model. Throws what modelFingerprint throws. */
export function savedPrompts(
  folder: PromptCacheFolder,
  model: LoadedModel,
  limits: SessionLimits,
  backend: string,
): SavedPromptsOptions {
  return {
    ...folder,
    fingerprint: modelFingerprint(model, limits, backend),
    blockBytes: memoryPlan(model, limits).kvBytesPerToken * limits.blockSize,
    warn: ({ message, code }) => process.emitWarning(message, { type: 'PromptCacheWarning', code }),
  };
}
