import { existsSync } from 'node:fs';
import { EngineError } from '../base/errors.js';
import { packageFile, packagePlaces } from '../base/package-files.js';

const FABLE = 'models/fable-q8_0.gguf';

/** Path of the model that comes with the package: a small writer of fairy tales, see models/README.md. */
export const embeddedModel = packageFile(FABLE) ?? packagePlaces(FABLE)[0]!;

/** The same, of a file that exists; a bundle may have been moved away from it. Throws EMBEDDED_MODEL_MISSING. */
export function requireEmbeddedModel(): string {
  if (existsSync(embeddedModel)) return embeddedModel;
  throw new EngineError('EMBEDDED_MODEL_MISSING', { places: packagePlaces(FABLE) });
}
