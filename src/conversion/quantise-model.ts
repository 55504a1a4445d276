import { join } from 'node:path';
import { EngineError } from '../base/errors.js';
import { metadataToCopy, writeGguf } from '../formats/gguf-writer.js';
import { type ModelSource, openModel } from '../formats/hub.js';
import type { ModelFiles, TensorInfo } from '../formats/model-file.js';
import { writeSafetensors } from '../formats/safetensors-writer.js';
import { readTensorBytes } from '../formats/tensor-bytes.js';
import type { QuantisedTypes } from '../model/quantised-types.js';
import { dequantiseRows } from '../tensor/dtype.js';
import { PANEL_ROWS, packedLayouts, panelBytes } from '../tensor/packed.js';
import { Calibration, type CalibrationText } from './calibration.js';
import { prepareOutput } from './output-place.js';
import { type ErrorSums, type PanelQuantiser, panelQuantiser } from './panel-quantiser.js';
import { type QuantisationSummary, summarise } from './summary.js';
import { planTensors, type QuantisedTensor, type TensorPlan } from './tensor-plan.js';

export interface QuantiseOptions {
  readonly types: QuantisedTypes;
  readonly threads: number;
  /** Replace what is at the output's place. Default false. */
  readonly force?: boolean | undefined;
  /** Gives up with ABORTED; nothing is left behind. */
  readonly signal?: AbortSignal | undefined;
  /** Bytes written so far and in all, and the tensor they end in. */
  readonly onProgress?: ((doneBytes: number, totalBytes: number, tensor: string) => void) | undefined;
  /** A text that shows what matter the weights have: GPTQ in place of rounding to nearest. Needs the addon. */
  readonly calibration?: CalibrationText | undefined;
  /** Tokens of the calibration text run so far and in all; more than once where memory needs several passes. */
  readonly onCalibration?: ((doneTokens: number, totalTokens: number) => void) | undefined;
  /** For tests: what quantises panels in place of the best there is. */
  readonly quantiser?: PanelQuantiser | undefined;
}

/** Bytes of packed panels that are made at a time. */
const PIECE_BYTES = 1 << 22;

/**
 * Writes a quantised copy of a model: of GGUF (split or not) one GGUF file, of safetensors a folder with one weights file
 * and everything that lay beside the old one. What it holds is mapped when it is loaded, not made again.
 *
 * Throws what opening and loading a model throw, OPTION_INVALID if there is nothing to be quantised, FILE_UNWRITABLE,
 * WEIGHT_NOT_FINITE and ABORTED.
 */
export async function quantiseModel(
  input: string,
  output: string,
  options: QuantiseOptions,
): Promise<QuantisationSummary> {
  const { types, signal, force = false } = options;
  const source = await openModel(input);
  const plans = planTensors(source, types);
  refuseNothing(plans, types);
  const quantiser = options.quantiser ?? panelQuantiser(source.files, options.threads);
  const sums = plans.map((): ErrorSums => ({ squaredError: 0, squaredSum: 0 }));
  const calibration = calibrationFor(source, plans, options);
  const work = { files: source.files, quantiser, calibration, signal };
  const bytesOf = (index: number) => tensorPieces(plans[index]!, work, sums[index]!);
  const outputs = plans.map((plan) => plan.output);
  const writeOptions = { signal, onProgress: namedProgress(outputs, options.onProgress) };
  const place = await prepareOutput(source, output, force);
  try {
    if (source.format === 'gguf') {
      await writeGguf(place.path, ggufMetadata(source, options), outputs, bytesOf, writeOptions);
    } else {
      const metadata = { format: 'pt', ...Object.fromEntries(description(options)) };
      await writeSafetensors(join(place.path, 'model.safetensors'), metadata, outputs, bytesOf, writeOptions);
    }
    await place.finish();
  } catch (error) {
    await place.abandon();
    throw error;
  }
  return summarise(plans, sums, types, quantiser.name);
}

function refuseNothing(plans: readonly TensorPlan[], { layers }: QuantisedTypes): void {
  if (plans.some(({ kind }) => kind === 'quantise')) return;
  const expected = "a model with matrices that are not in one of the engine's own types and whose rows 32 divides";
  throw new EngineError('OPTION_INVALID', { option: '--type', value: layers, expected });
}

function calibrationFor(
  source: ModelSource,
  plans: readonly TensorPlan[],
  { calibration: text, threads, signal, onCalibration: onProgress }: QuantiseOptions,
): Calibration | null {
  if (text === undefined) return null;
  const names = plans.filter(({ kind }) => kind === 'quantise').map((plan) => plan.source.name);
  return new Calibration(source, names, text, { threads, signal, onProgress });
}

/** What the file says about its making. */
function description({ types: { layers, head }, calibration }: QuantiseOptions): [key: string, value: string][] {
  return [
    ['engine.quantization.method', calibration ? 'gptq' : 'rtn'],
    ['engine.quantization.type', layers],
    ['engine.quantization.head_type', head ?? 'keep'],
  ];
}

function ggufMetadata(source: ModelFiles, options: QuantiseOptions) {
  // The first file's metadata are those of a split model.
  const [first] = source.files.keys();
  const metadata = metadataToCopy(first!);
  for (const key of metadata.keys()) if (key.startsWith('split.')) metadata.delete(key);
  metadata.set('general.file_type', { type: 'uint32', value: packedLayouts[options.types.layers].id });
  metadata.set('general.quantization_version', { type: 'uint32', value: 2 });
  for (const [key, value] of description(options)) metadata.set(key, { type: 'string', value });
  return metadata;
}

/** What all tensors are made with. */
interface Work {
  readonly files: ModelFiles['files'];
  readonly quantiser: PanelQuantiser;
  readonly calibration: Calibration | null;
  readonly signal: AbortSignal | undefined;
}

async function* tensorPieces(plan: TensorPlan, work: Work, sums: ErrorSums): AsyncGenerator<Uint8Array> {
  if (plan.kind === 'quantise') yield* quantisedPieces(plan, work, sums);
  else if (plan.kind === 'copy') yield* storedPieces(plan.source, work.files);
  else yield floatBytes(plan.source, work.files);
}

async function* quantisedPieces(
  matrix: QuantisedTensor,
  { quantiser, calibration, signal }: Work,
  sums: ErrorSums,
): AsyncGenerator<Uint8Array> {
  const errors = await calibration?.errorsOf(matrix.source.name);
  const numPanels = Math.ceil(matrix.rows / PANEL_ROWS);
  const perPiece = Math.max(1, Math.floor(PIECE_BYTES / panelBytes(matrix.dtype, matrix.columns)));
  for (let first = 0; first < numPanels; first += perPiece) {
    const count = Math.min(perPiece, numPanels - first);
    yield await quantiser.quantise({ matrix, first, count, errors, signal }, sums);
  }
}

function* storedPieces(tensor: TensorInfo, files: ModelFiles['files']): Generator<Uint8Array> {
  for (let done = 0; done < tensor.byteLength; done += PIECE_BYTES) {
    const byteLength = Math.min(PIECE_BYTES, tensor.byteLength - done);
    yield readTensorBytes({ ...tensor, offset: tensor.offset + done, byteLength }, files);
  }
}

/** A vector as float32. */
function floatBytes(tensor: TensorInfo, files: ModelFiles['files']): Uint8Array {
  const length = tensor.shape[0]!;
  const values = new Float32Array(length);
  dequantiseRows(tensor.dtype, readTensorBytes(tensor, files), length, 0, 1, values);
  return new Uint8Array(values.buffer);
}

/** Says which tensor the bytes written so far end in. */
function namedProgress(
  outputs: readonly { readonly name: string; readonly byteLength: number }[],
  onProgress: QuantiseOptions['onProgress'],
): ((done: number, total: number) => void) | undefined {
  if (onProgress === undefined) return undefined;
  let index = 0;
  let before = 0;
  return (done, total) => {
    while (index < outputs.length - 1 && done > before + outputs[index]!.byteLength) {
      before += outputs[index]!.byteLength;
      index++;
    }
    onProgress(done, total, outputs[index]!.name);
  };
}
