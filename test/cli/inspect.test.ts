import { execFileSync } from 'node:child_process';
import {
  closeSync,
  ftruncateSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readFileSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, describe, expect, it } from 'vitest';
import { abiNumber } from '../../src/backend/encode-plan.js';
import { dtypes } from '../../src/tensor/dtype.js';
import { runCli, runJson } from './run-cli.js';

interface Report {
  format: string;
  architecture: string;
  parameters: number;
  config: Record<string, number>;
  dtypes: Record<string, number>;
  tokenizer: { vocab_size: number; bos_id: number } | null;
  memory: Record<string, number>;
}

const folder = mkdtempSync(join(tmpdir(), 'engine-inspect-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A checkpoint of real size whose weights are all zero, so that the file takes no space on disk. */
function zeroCheckpoint(): string {
  const [hidden, intermediate, layers, vocab] = [1024, 2816, 4, 8192];
  const shapes: [string, number[]][] = [
    ['model.embed_tokens.weight', [vocab, hidden]],
    ['model.norm.weight', [hidden]],
  ];
  for (let i = 0; i < layers; i++) {
    const layer = (name: string, shape: number[]) => shapes.push([`model.layers.${i}.${name}.weight`, shape]);
    for (const name of ['input_layernorm', 'post_attention_layernorm']) layer(name, [hidden]);
    for (const name of ['q_proj', 'k_proj', 'v_proj', 'o_proj']) layer(`self_attn.${name}`, [hidden, hidden]);
    for (const name of ['gate_proj', 'up_proj']) layer(`mlp.${name}`, [intermediate, hidden]);
    layer('mlp.down_proj', [hidden, intermediate]);
  }
  let offset = 0;
  const header: Record<string, unknown> = {};
  for (const [name, shape] of shapes) {
    const end = offset + 4 * shape.reduce((a, b) => a * b);
    header[name] = { dtype: 'F32', shape, data_offsets: [offset, end] };
    offset = end;
  }
  const json = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(json.length));
  const path = join(folder, 'zeros');
  mkdirSync(path);
  const file = openSync(join(path, 'model.safetensors'), 'w');
  writeSync(file, Buffer.concat([length, json]));
  ftruncateSync(file, 8 + json.length + offset);
  closeSync(file);
  const config = {
    architectures: ['LlamaForCausalLM'],
    hidden_size: hidden,
    intermediate_size: intermediate,
    num_hidden_layers: layers,
    num_attention_heads: 16,
    num_key_value_heads: 16,
    vocab_size: vocab,
    max_position_embeddings: 4096,
    rms_norm_eps: 1e-5,
    tie_word_embeddings: true,
  };
  writeFileSync(join(path, 'config.json'), JSON.stringify(config));
  return path;
}

describe('engine inspect', () => {
  it('describes the embedded model', async () => {
    const report = await runJson<Report>(['inspect']);
    expect(report).toMatchObject({ format: 'gguf', architecture: 'llama', tokenizer: { vocab_size: 4096, bos_id: 0 } });
    expect(report.parameters).toBe(7_344_384);
    const { stdout, code } = await runCli(['inspect']);
    expect(code).toBe(0);
    expect(stdout).toContain('7,344,384');
  });

  it('plans for the context and batch that are asked for', async () => {
    const small = await runJson<Report>(['inspect', '--context-size', '256']);
    const inspectLarge = (kvDtype: string) =>
      runJson<Report>(['inspect', '--context-size', '1024', '--batch-size', '4', '--kv-dtype', kvDtype]);
    const large = await inspectLarge('f32');
    expect(small.memory.kv_cache).toBe(256 * small.memory.kv_bytes_per_token!);
    expect(large.memory.kv_cache).toBe(4096 * large.memory.kv_bytes_per_token!);
    expect(large.memory.kv_bytes_per_token).toBe(2 * small.memory.kv_bytes_per_token!); // float16 is the default
    const headDim = (await runJson<Report>(['inspect'])).config.head_dim!;
    const int8 = (await inspectLarge('int8')).memory.kv_bytes_per_token!;
    expect(int8 / large.memory.kv_bytes_per_token!).toBe((headDim + 4) / (4 * headDim));
  });

  it('plans the memory that a full context really takes, within 5%', { timeout: 120_000 }, async () => {
    const model = zeroCheckpoint();
    const { memory } = await runJson<Report>(['inspect', model, '--context-size', '2048']);
    const script = fileURLToPath(new URL('measure-rss.mjs', import.meta.url));
    const measured = Number(
      execFileSync(process.execPath, ['--expose-gc', script, model, '2048'], { encoding: 'utf8' }),
    );
    expect(memory.total).toBeGreaterThan(250e6); // large enough that the JS heap is noise
    expect(Math.abs(measured - memory.total!) / memory.total!).toBeLessThan(0.05);
  });

  it('saves the plan with its limits and the table of weights', async () => {
    const file = join(folder, 'fable.plan');
    await runCli(['inspect', '--context-size', '256', '--quantize', 'int4', '--save-plan', file]);
    const bytes = readFileSync(file);
    expect(bytes.subarray(0, 8).toString()).toBe('ENGNPLAN');
    const words = new Int32Array(new Uint8Array(bytes.subarray(8)).buffer);
    expect(words[0]).toBe(abiNumber);
    const [, numBuffers, numWeights] = words;
    expect(words[12]).toBe(256);
    // The last word of each weight is its type in memory.
    const weights = Array.from({ length: numWeights! }, (_, i) => words[16 + 3 * numBuffers! + 8 * i + 7]);
    expect(weights).toContain(dtypes.int4.id);
    const { code, stderr } = await runCli(['inspect', '--save-plan', join(folder, 'no', 'folder')]);
    expect([code, stderr.split(' ')[1]]).toEqual([2, '[FILE_UNWRITABLE]']);
  });

  it('inspects sizes of published models that are not there', async () => {
    const report = await runJson<Report>(['inspect', '--synthetic', 'llama-2-7b', '--type', 'bf16']);
    expect(report).toMatchObject({ architecture: 'llama', parameters: 6_738_415_616, tensor_bytes: 13_477_363_712 });
    const stderrOf = async (...args: string[]) => (await runCli(['inspect', ...args])).stderr;
    expect(await stderrOf('--type', 'bf16')).toMatch(/OPTION_INVALID.*--synthetic with it/);
    expect(await stderrOf('model.gguf', '--synthetic', '15m')).toMatch(/OPTION_INVALID.*no model/);
    expect(await stderrOf('--synthetic', '15g')).toMatch(/OPTION_INVALID.*one of 15m/);
  });

  it('names the file when there is nothing to inspect', async () => {
    const { code, stderr } = await runCli(['inspect', join(folder, 'none.gguf')]);
    expect(code).toBe(2);
    expect(stderr).toMatch(/^engine: \[FILE_NOT_FOUND\] .*none\.gguf.*\n$/);
  });
});
