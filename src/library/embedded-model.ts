import { fileURLToPath } from 'node:url';

/** Path of the model that comes with the package: a small writer of fairy tales, see models/README.md. */
export const embeddedModel = fileURLToPath(new URL('../../models/fable-q8_0.gguf', import.meta.url));
