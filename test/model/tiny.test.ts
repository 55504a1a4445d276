import { join } from 'node:path';
import { expect } from 'vitest';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { testOnBackends } from './backends.js';
import { ModelRun, maxAbsDiff } from './run-model.js';
import { type TinyTensor, tinyGpt2, tinyLlama, writeCheckpoint, writeTinyGguf } from './tiny-checkpoint.js';

// Expected values: transformers 5.18 in double precision on these very files.

const folder = temporaryFolder();

const prompt = [1, 17, 42, 5, 80];

testOnBackends('a tiny Llama gives the logits and the tokens of transformers', async (backend) => {
  const run = await ModelRun.open(backend, writeCheckpoint(join(folder, 'llama'), tinyLlama()));
  const logits = await run.logits(prompt);
  expect(maxAbsDiff(logits[0]!.slice(0, 4), [2.584814, 0.3327449, -0.5252991, 0.3320134])).toBeLessThan(2e-6);
  expect(maxAbsDiff(logits[4]!.slice(0, 4), [0.597261, 0.4694788, 0.2336531, 0.3159601])).toBeLessThan(2e-6);
  expect(await run.greedy(prompt, 16)).toEqual([15, 19, 56, 9, 52, 73, 92, 50, 54, 86, 28, 46, 41, 28, 0, 71]);
  await run.dispose();
});

testOnBackends('a tiny GPT-2 gives the logits and the tokens of transformers', async (backend) => {
  const run = await ModelRun.open(backend, writeCheckpoint(join(folder, 'gpt2'), tinyGpt2()));
  const logits = await run.logits(prompt);
  expect(maxAbsDiff(logits[0]!.slice(0, 4), [0.8583499, 0.469574, -1.944772, 0.4782809])).toBeLessThan(2e-6);
  expect(maxAbsDiff(logits[4]!.slice(0, 4), [0.1185955, -0.3085372, 0.0141071, 0.2847709])).toBeLessThan(2e-6);
  expect(await run.greedy(prompt, 4)).toEqual([76, 18, 18, 18]);
  await run.dispose();
});

testOnBackends('logits of one pass are those of token after token', async (backend) => {
  const run = await ModelRun.open(backend, writeCheckpoint(join(folder, 'steps'), tinyLlama()));
  const whole = await run.logits(prompt);
  for (const [position, id] of prompt.entries()) {
    const [alone] = await run.logits([id], position);
    expect(alone).toEqual(whole[position]);
  }
  await run.dispose();
});

testOnBackends('one model in GGUF and in safetensors gives the same logits', async (backend) => {
  const llama = tinyLlama({ attention_bias: true, tie_word_embeddings: true });
  const safetensors = await ModelRun.open(backend, writeCheckpoint(join(folder, 'both'), llama));
  const gguf = await ModelRun.open(
    backend,
    writeTinyGguf(join(folder, 'both.gguf'), ggufMetadata, llama.tensors.map(toGguf)),
  );
  expect(gguf.model.config).toEqual(safetensors.model.config);
  const [actual, expected] = [await gguf.logits(prompt), await safetensors.logits(prompt)];
  for (const [position, row] of expected.entries()) expect(maxAbsDiff(actual[position]!, row)).toBeLessThan(1e-5);
  await gguf.dispose();
  await safetensors.dispose();
});

const ggufMetadata = {
  'general.architecture': 'llama',
  'llama.embedding_length': 32,
  'llama.feed_forward_length': 48,
  'llama.block_count': 2,
  'llama.attention.head_count': 4,
  'llama.attention.head_count_kv': 2,
  'llama.attention.key_length': 8,
  'llama.vocab_size': 96,
  'llama.context_length': 128,
  'llama.attention.layer_norm_rms_epsilon': { type: 'float64', value: 1e-5 } as const,
};

const ggufNames: readonly (readonly [RegExp, string])[] = [
  [/^model\.embed_tokens/, 'token_embd'],
  [/^model\.norm/, 'output_norm'],
  [/^model\.layers\.(\d+)\.input_layernorm/, 'blk.$1.attn_norm'],
  [/^model\.layers\.(\d+)\.post_attention_layernorm/, 'blk.$1.ffn_norm'],
  [/^model\.layers\.(\d+)\.self_attn\.o_proj/, 'blk.$1.attn_output'],
  [/^model\.layers\.(\d+)\.self_attn\.([qkv])_proj/, 'blk.$1.attn_$2'],
  [/^model\.layers\.(\d+)\.mlp\.(gate|up|down)_proj/, 'blk.$1.ffn_$2'],
];

/** As llama.cpp's converter does: query and key rows in the order in which neighbours are rotated together. */
function toGguf({ name, shape, values }: TinyTensor): TinyTensor {
  const [pattern, replacement] = ggufNames.find(([known]) => known.test(name))!;
  const ggufName = name.replace(pattern, replacement);
  if (!/attn_[qk]\./.test(ggufName)) return { name: ggufName, shape, values };
  const [rows, columns = 1] = shape as [number, number?];
  const headDim = 8;
  const reordered = new Float32Array(values.length);
  for (let row = 0; row < rows; row++) {
    const head = Math.floor(row / headDim);
    const inHead = row % headDim;
    const pair = inHead % (headDim / 2);
    const target = head * headDim + 2 * pair + (inHead < headDim / 2 ? 0 : 1);
    reordered.set(values.subarray(row * columns, (row + 1) * columns), target * columns);
  }
  return { name: ggufName, shape, values: reordered };
}
