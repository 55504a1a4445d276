import { EngineError } from '../base/errors.js';
import type { ModelSource } from '../formats/hub.js';
import { fieldsOf } from './config-reader.js';
import type { Family } from './family.js';
import { gpt2 } from './gpt2.js';
import { llama } from './llama.js';
import { mistral } from './mistral.js';
import { qwen2 } from './qwen2.js';
import { qwen3 } from './qwen3.js';

/** The one list of supported architectures. */
export const families: readonly Family[] = [llama, mistral, qwen2, qwen3, gpt2];

/** The family a model belongs to, by its own word. Throws ARCHITECTURE_UNSUPPORTED. */
export function familyOf(source: ModelSource): { family: Family; architecture: string } {
  const { architecture, isMeant } = statedArchitecture(source);
  const family = families.find(isMeant);
  if (family !== undefined) return { family, architecture };
  const supported = families.map(({ name }) => name).join(', ');
  throw new EngineError('ARCHITECTURE_UNSUPPORTED', { architecture, supported });
}

function statedArchitecture(source: ModelSource): { architecture: string; isMeant: (family: Family) => boolean } {
  const fields = fieldsOf(source);
  if (source.format === 'gguf') {
    const architecture = fields.string('general.architecture');
    return { architecture, isMeant: ({ gguf }) => gguf.includes(architecture) };
  }
  // `architectures` tells a language model from a classifier on the same layers, `model_type` does not.
  const [architecture] = fields.optionalStrings('architectures') ?? [];
  if (architecture !== undefined)
    return { architecture, isMeant: ({ architectures }) => architectures.includes(architecture) };
  const type = fields.string('model_type');
  return { architecture: type, isMeant: ({ modelType }) => modelType === type };
}
