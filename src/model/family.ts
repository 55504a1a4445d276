import type { Buffer } from '../backend/op.js';
import type { ModelConfig } from './config.js';
import type { ConfigReader } from './config-reader.js';
import type { LayerRecorder } from './layers.js';
import type { Names } from './names.js';

/** What makes an architecture: one such object per file, one row in families.ts. */
export interface Family {
  /** Shown to users, and `ModelConfig.architecture`. */
  readonly name: string;
  /** `architectures` of config.json. */
  readonly architectures: readonly string[];
  /** `model_type` of config.json, for configurations without `architectures`. */
  readonly modelType: string;
  /** `general.architecture` of GGUF files. */
  readonly gguf: readonly string[];
  /** Tensor names in safetensors. */
  readonly names: Names;
  /**
   * llama.cpp's converter reorders the rows of query and key so that rotated pairs are neighbours; files then need the
   * interleaved rotation.
   */
  readonly interleavedInGguf: boolean;
  /** Throws CONFIG_INVALID. */
  readonly readConfig: (reader: ConfigReader) => ModelConfig;
  /** Records the forward pass and returns the logits. */
  readonly forward: (m: LayerRecorder) => Buffer;
}
