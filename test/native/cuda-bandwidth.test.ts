import { join } from 'node:path';
import { beforeAll, describe, expect, it } from 'vitest';
import { cudaBandwidth } from '../../src/backend/native-cuda.js';
import { besideBandwidth, gpuBandwidth } from '../../src/benchmark/peaks.js';
import type { BenchReport } from '../../src/benchmark/report.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { runCli, runJson } from '../cli/run-cli.js';
import { writeTinyChatModel } from '../cli/tiny-chat-model.js';
import { BUILD_TIMEOUT, buildEmulatedCuda, noEmulatedCuda } from './emulated-cuda.js';

const folder = temporaryFolder();

describe.skipIf(noEmulatedCuda)(`the bandwidth of a GPU${noEmulatedCuda ?? ''}`, { timeout: 60_000 }, () => {
  let library: string;
  let model: string;
  beforeAll(async () => {
    library = await buildEmulatedCuda();
    model = writeTinyChatModel(join(folder, 'tiny.gguf'));
  }, BUILD_TIMEOUT);

  it('is what its datasheet says, and what copies show', () => {
    const { measured, datasheet } = cudaBandwidth({ library });
    expect(datasheet).toBe(1e11);
    expect(measured).toBeGreaterThan(1e8);
    expect(() => cudaBandwidth({ library, device: 999 })).toThrow(/no GPU 999/);
  });

  it('is shown by engine doctor', async () => {
    const env = { ENGINE_CUDA_LIBRARY: library };
    const { gpus } = await runJson<{ gpus: { memoryBytesPerSecond: number }[] }>(['doctor'], { env });
    expect(gpus[0]!.memoryBytesPerSecond).toBe(1e11);
    expect((await runCli(['doctor'], { env })).stdout).toContain('free, 100 GB/s by datasheet');
  });

  it('stands beside the speed of decode on a GPU, and not on a processor', async () => {
    const sizes = ['--prompt-tokens', '4', '--generated-tokens', '2', '--runs', '1', '--no-check'];
    const rowOn = async (backend: string) => {
      const command = ['bench', 'decode', '-m', model, '--backend', backend, ...sizes];
      return (await runJson<BenchReport>(command, { env: { ENGINE_CUDA_LIBRARY: library } })).rows[0]!;
    };
    const row = await rowOn('native-cuda');
    expect(row.datasheet_gb_per_second).toBe(100);
    expect(row.percent_of_datasheet).toBeCloseTo(row.gb_per_second!, 9);
    expect(row.percent_of_peak).toBeCloseTo((100 * row.gb_per_second!) / row.peak_gb_per_second!, 9);
    expect(await rowOn('native-cpu')).not.toHaveProperty('datasheet_gb_per_second');
  });

  it('is left out where it is unknown', () => {
    const row = { gb_per_second: 50 } as BenchReport['rows'][number];
    expect(gpuBandwidth('native-cpu:avx2')).toBeNull();
    expect(besideBandwidth(row, null)).toEqual({});
    expect(besideBandwidth(row, { measured: 100e9, datasheet: null })).toEqual({
      peak_gb_per_second: 100,
      percent_of_peak: 50,
    });
  });
});
