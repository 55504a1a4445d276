import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Command, Option } from 'commander';
import { encodePlan } from '../backend/encode-plan.js';
import { DEFAULT_KV_DTYPE, kvDtypes } from '../backend/kv-dtype.js';
import { EngineError } from '../base/errors.js';
import { openModel } from '../formats/hub.js';
import { embeddedModel } from '../library/embedded-model.js';
import { type LoadOptions, sessionLimits, typesAtLoad } from '../library/load-options.js';
import { chatTemplateOf } from '../library/open-chat-template.js';
import { tokenizerOf } from '../library/open-tokenizer.js';
import { loadModel } from '../model/load.js';
import { countParameters, memoryPlan } from '../model/memory.js';
import { writeSyntheticHeader } from '../synthetic/model.js';
import type { ShapeName } from '../synthetic/shapes.js';
import type { SyntheticType } from '../synthetic/types.js';
import { parseShape, typeFlag } from './bench-synthetic.js';
import { choice, number, quantizeFlag } from './flags.js';
import { formatBytes, formatTable, Output } from './output.js';

type InspectFlags = Pick<LoadOptions, 'contextSize' | 'batchSize' | 'kvDtype' | 'quantize'> & {
  readonly json?: boolean;
  readonly savePlan?: string;
  readonly synthetic?: ShapeName;
  readonly type?: SyntheticType;
};

export function inspectCommand(): Command {
  return new Command('inspect')
    .description('architecture, sizes, storage types, tokenizer and exact memory plan of a model; nothing is loaded')
    .argument('[model]', 'GGUF or safetensors file, or a folder with config.json (default: the embedded model)')
    .addOption(number('--context-size <tokens>', "plan for this context; default: the model's, at most 4096"))
    .addOption(number('--batch-size <n>', 'plan for this many requests of full length at once; default 1'))
    .addOption(
      choice('--kv-dtype <type>', `plan for this storage of keys and values; default ${DEFAULT_KV_DTYPE}`, kvDtypes),
    )
    .addOption(quantizeFlag())
    .addOption(
      new Option('--synthetic <shape>', 'a model with these sizes, which need not exist').argParser(parseShape),
    )
    .addOption(typeFlag())
    .option('--save-plan <file>', 'write the plan as native code gets it, for native/cuda_runner.cc')
    .option('--json', 'print one JSON object')
    .action(inspect);
}

async function inspect(path: string | undefined, flags: InspectFlags): Promise<void> {
  const { synthetic, type = 'q4_0' } = flags;
  if (synthetic === undefined) {
    if (flags.type === undefined) return inspectModel(path ?? embeddedModel, flags);
    throw new EngineError('OPTION_INVALID', { option: '--type', value: type, expected: '--synthetic with it' });
  }
  if (path !== undefined) {
    throw new EngineError('OPTION_INVALID', { option: '--synthetic', value: synthetic, expected: 'no model' });
  }
  const folder = mkdtempSync(join(tmpdir(), 'engine-inspect-'));
  try {
    const file = join(folder, `${synthetic}-${type}.gguf`);
    writeSyntheticHeader(file, synthetic, type);
    await inspectModel(file, flags);
  } finally {
    rmSync(folder, { recursive: true, force: true });
  }
}

async function inspectModel(path: string, flags: InspectFlags): Promise<void> {
  const report = await describe(path, flags);
  if (flags.savePlan !== undefined) await savePlan(path, flags.savePlan, flags);
  const output = new Output();
  await (flags.json ? output.json(report) : output.write(format(report)));
}

/** The plan's words (src/backend/encode-plan.ts) in the machine's order of bytes, behind eight letters. */
async function savePlan(path: string, file: string, flags: InspectFlags): Promise<void> {
  const source = await openModel(path);
  const { plan, weights, config } = loadModel(source, { activations: 'f32', quantise: typesAtLoad(flags) });
  const { words } = encodePlan(plan, weights, sessionLimits(flags, config));
  try {
    writeFileSync(file, Buffer.concat([Buffer.from('ENGNPLAN'), new Uint8Array(words.buffer)]));
  } catch (cause) {
    throw new EngineError('FILE_UNWRITABLE', { path: file, reason: (cause as Error).message }, { cause });
  }
}

async function describe(path: string, flags: InspectFlags) {
  const source = await openModel(path);
  const model = loadModel(source, { activations: 'q8', quantise: typesAtLoad(flags) });
  const limits = sessionLimits(flags, model.config);
  const tokenizer = tokenizerOf(source);
  const { config } = model;
  const tensors = [...source.tensors.values()];
  const dtypes: Record<string, number> = {};
  for (const { dtype } of tensors) dtypes[dtype] = (dtypes[dtype] ?? 0) + 1;
  const memory = memoryPlan(model, limits);
  return {
    path: source.path,
    format: source.format,
    architecture: config.architecture,
    parameters: countParameters(model.plan),
    tensor_bytes: tensors.reduce((sum, { byteLength }) => sum + byteLength, 0),
    tensors: tensors.length,
    dtypes,
    config: {
      hidden_size: config.hiddenSize,
      intermediate_size: config.intermediateSize,
      num_layers: config.numLayers,
      num_heads: config.numHeads,
      num_kv_heads: config.numKvHeads,
      head_dim: config.headDim,
      vocab_size: config.vocabSize,
      context_length: config.contextLength,
    },
    tokenizer: tokenizer && {
      vocab_size: tokenizer.vocabSize,
      bos_id: tokenizer.bosId,
      eos_ids: [...tokenizer.eosIds],
    },
    chat_template: chatTemplateOf(source, tokenizer) !== null,
    memory: {
      context_size: limits.contextSize,
      batch_size: flags.batchSize ?? 1,
      kv_dtype: limits.kvDtype,
      mapped_weights: memory.mappedWeights,
      copied_weights: memory.copiedWeights,
      kv_bytes_per_token: memory.kvBytesPerToken,
      kv_cache: memory.kvCache,
      activations: memory.activations,
      rope_tables: memory.ropeTables,
      total: memory.total,
    },
  };
}

function format(report: Awaited<ReturnType<typeof describe>>): string {
  const { config, tokenizer, memory } = report;
  const list = (counts: Record<string, number>) =>
    Object.entries(counts)
      .map(([name, count]) => `${count} ${name}`)
      .join(', ');
  return formatTable([
    ['model', report.path],
    ['format', report.format],
    ['architecture', report.architecture],
    ['parameters', report.parameters.toLocaleString('en-US')],
    ['tensors', `${report.tensors} (${list(report.dtypes)}), ${formatBytes(report.tensor_bytes)}`],
    [
      'layers',
      `${config.num_layers}, hidden size ${config.hidden_size}, intermediate size ${config.intermediate_size}`,
    ],
    ['heads', `${config.num_heads}, ${config.num_kv_heads} for keys and values, dimension ${config.head_dim}`],
    ['context', `${config.context_length} tokens`],
    ['vocabulary', `${config.vocab_size} tokens`],
    [
      'tokenizer',
      tokenizer ? `beginning ${tokenizer.bos_id ?? 'none'}, end ${tokenizer.eos_ids.join(', ') || 'none'}` : 'none',
    ],
    ['chat template', report.chat_template ? 'yes' : 'no'],
    ['', ''],
    [
      'memory plan',
      `${memory.context_size} tokens of context, ${memory.batch_size} at once, ${memory.kv_dtype} keys and values`,
    ],
    ['  weights, mapped', formatBytes(memory.mapped_weights)],
    ['  weights, copied', formatBytes(memory.copied_weights)],
    ['  keys and values', `${formatBytes(memory.kv_cache)} (${formatBytes(memory.kv_bytes_per_token)} per token)`],
    ['  activations', formatBytes(memory.activations)],
    ['  rotary tables', formatBytes(memory.rope_tables)],
    ['  total', formatBytes(memory.total)],
  ]);
}
