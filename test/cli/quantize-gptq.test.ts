import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { describe, expect, it } from 'vitest';
import { type GgufSource, openModel } from '../../src/formats/hub.js';
import { notBuilt } from '../backend/native-availability.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { runCli, runJson } from './run-cli.js';

const draft = fileURLToPath(new URL('../../models/fable-draft-q8_0.gguf', import.meta.url));
const folder = temporaryFolder();
const text = join(folder, 'text.txt');
writeFileSync(text, 'The fox went to the river, and the river said to the fox: go home, little one. '.repeat(120));

describe('engine quantize --method gptq', () => {
  it.skipIf(notBuilt)(`learns from a text${notBuilt ?? ''}`, async () => {
    const output = join(folder, 'gptq.gguf');
    const args = ['quantize', draft, output, '--type', 'int4', '--method', 'gptq', '--calibration', text];
    const report = await runJson<{ method: string; total: { relative_error: number } }>(args);
    expect(report.method).toBe('gptq');
    const { metadata } = (await openModel(output)) as GgufSource;
    expect(metadata.get('engine.quantization.method')).toBe('gptq');
    // Errors of weights are larger than those of rounding, as they make up for each other.
    const rounded = await runJson<typeof report>(['quantize', draft, join(folder, 'rtn.gguf'), '--type', 'int4']);
    expect(rounded.method).toBe('rtn');
    expect(report.total.relative_error).toBeGreaterThan(rounded.total.relative_error);
  });

  it.each([
    [['--method', 'gptq'], '--calibration is missing'],
    [['--calibration', text], '--method gptq'],
    [['--method', 'gptq', '--calibration', join(folder, 'none')], 'does not exist'],
    [['--method', 'gptq', '--calibration', text, '--calibration-tokens', '10'], 'from 1024 to'],
    [['--method', 'best'], 'rtn, gptq'],
  ])('refuses %j', async (flags, part) => {
    const { code, stderr } = await runCli([
      'quantize',
      draft,
      join(folder, 'refused.gguf'),
      '--type',
      'int4',
      ...flags,
    ]);
    expect({ code, stderr }).toEqual({ code: 2, stderr: expect.stringContaining(part) });
  });

  it.skipIf(notBuilt)(`refuses a text that is too short${notBuilt ?? ''}`, async () => {
    const short = join(folder, 'short.txt');
    writeFileSync(short, 'The fox.');
    const flags = ['--type', 'int4', '--method', 'gptq', '--calibration', short];
    const { code, stderr } = await runCli(['quantize', draft, join(folder, 'refused.gguf'), ...flags]);
    expect({ code, stderr }).toEqual({
      code: 2,
      stderr: expect.stringMatching(/CALIBRATION_TOO_SHORT.* at least 1024/),
    });
  });
});
