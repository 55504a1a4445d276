import { Engine } from '../../src/index.js';
import type { BackendName } from '../../src/library/load-options.js';
import type { Answer } from './consumer.js';

/** What the program of `tell` answers, computed here. */
export async function expectedAnswer(backend: 'auto' | BackendName): Promise<Answer> {
  await using engine = await Engine.load({ backend });
  const { tokenIds } = await engine.complete({ prompt: 'Once upon a time', maxTokens: 6, temperature: 0 });
  return { backend: engine.backend, tokenIds: [...tokenIds] };
}
