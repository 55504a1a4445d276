import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { readBaseline } from '../../src/benchmark/baseline.js';
import { llamaShapes } from '../../src/synthetic/shapes.js';

const scripts = fileURLToPath(new URL('../../bench/gpu', import.meta.url));
const folder = mkdtempSync(join(tmpdir(), 'engine-pytorch-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const python = (...args: string[]) => spawnSync('python3', args, { cwd: scripts, encoding: 'utf8' });
const { status } = python('-c', 'import torch; torch.compiler.reset');

function testWithTorch(name: string, body: () => void): void {
  if (status === 0) test(name, body, 120_000);
  else test.skip(`${name} (skipped: no python3 with torch)`, () => {});
}

test('shapes.json is what export-shapes.mjs makes of our shapes', async () => {
  const exporter: string = pathToFileURL(join(scripts, 'export-shapes.mjs')).href;
  const { shapesJson } = (await import(exporter)) as { shapesJson: (shapes: object) => string };
  expect(readFileSync(join(scripts, 'shapes.json'), 'utf8')).toBe(shapesJson(llamaShapes));
});

testWithTorch('PyTorch baselines are reports that ours can be put beside', () => {
  const path = join(folder, 'pytorch.json');
  const modes = ['--modes', 'eager,int8,int4', '--no-compile', '--device', 'cpu'];
  const sizes = ['--batch', '1,2', '--prompt-tokens', '8', '--generated-tokens', '2', '--runs', '1'];
  const run = python('measure.py', '15m', ...modes, ...sizes, '--json', path);
  expect(run).toMatchObject({ status: 0, stdout: '' });
  const { rows, parameters } = readBaseline(path);
  expect(parameters).toBe(24_407_712); // as `engine bench` counts them
  const names = ['eager', 'int8', 'int4'].flatMap((mode) => [`${mode}: prefill`, `${mode}: decode`]);
  expect(rows.filter(({ batch }) => batch === 1).map(({ name }) => name)).toEqual(names);
  const bytes = rows.filter((row) => row.batch === 1 && row.generated_tokens > 0).map((row) => row.bytes_per_token!);
  expect(bytes[0]! / bytes[1]!).toBeCloseTo(2, 1);
  expect(bytes[1]).toBeGreaterThan(bytes[2]!);
});

testWithTorch('its decoder computes the same token by token as at once, and both kinds of 4 bits agree', () => {
  const check = `
import torch
from decoder import Decoder, Linear, read_shapes
from quantised import Int4DequantisingLinear, Int4Linear, Int8Linear, require_close
torch.manual_seed(0)
cpu = torch.device("cpu")
with torch.no_grad():
    model = Decoder(read_shapes()["15m"], Linear, 2, 8, torch.float32, cpu)
    tokens = torch.randint(32000, (2, 6))
    whole = model(tokens, torch.arange(6))
    for layer in model.layers:
        layer.keys.zero_(), layer.values.zero_()
    model(tokens[:, :4], torch.arange(4))
    for i in (4, 5):
        logits = model(tokens[:, i : i + 1], torch.tensor([i]))
    assert torch.allclose(whole, logits, atol=1e-5), (whole - logits).abs().max()
    assert whole.std() > 0.01
    for linear in (Int8Linear, Int4Linear, Int4DequantisingLinear):
        require_close(linear, cpu, torch.bfloat16)
    weight, x = torch.randn(64, 256).bfloat16(), torch.randn(2, 3, 256).bfloat16()
    a, b = Int4Linear(weight)(x).float(), Int4DequantisingLinear(weight)(x).float()
    assert (a - b).norm() < 0.02 * b.norm(), (a - b).norm() / b.norm()
`;
  expect(python('-c', check)).toMatchObject({ status: 0, stderr: '' });
});

testWithTorch('what cannot be measured is refused in a line', () => {
  for (const [args, message] of [
    [['15m', '--prompt-tokens', '250', '--generated-tokens', '7'], 'more than the 256 of 15m'],
    [['15m', '--batch', '0'], '0; expected a whole number from 1 to 256'],
    [['15m', '--modes', 'fp8'], 'expected some of eager'],
    [['16m'], "invalid choice: '16m'"],
  ] as const) {
    const { status: code, stderr } = python('measure.py', '--device', 'cpu', ...args);
    expect(code).toBe(2);
    expect(stderr).toContain(message);
  }
});
