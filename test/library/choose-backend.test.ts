import { afterEach, beforeAll, describe, expect, it } from 'vitest';
import { chooseBackend } from '../../src/library/choose-backend.js';
import { writeWeights } from '../backend/case-builder.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { schedules, tinyLlama } from '../backend/tiny-llama.js';
import { BUILD_TIMEOUT, buildEmulatedCuda, noEmulatedCuda } from '../native/emulated-cuda.js';

const folder = temporaryFolder();

describe.skipIf(noEmulatedCuda)(`the backend that is chosen${noEmulatedCuda ?? ''}`, () => {
  beforeAll(async () => {
    process.env.ENGINE_CUDA_LIBRARY = await buildEmulatedCuda();
  }, BUILD_TIMEOUT);
  afterEach(() => {
    delete process.env.ENGINE_EMULATED_NONE;
    delete process.env.ENGINE_EMULATED_CAPABILITY;
    delete process.env.ENGINE_EMULATED_FAILURE;
    delete process.env.ENGINE_CUDA_FUSION;
  });

  it('is the GPU where there is one', () => {
    expect(chooseBackend({})).toMatchObject({ backend: { name: 'native-cuda:sm_90' }, fallbackReason: null });
    expect(chooseBackend({ backend: 'native-cpu' }).backend.name).toMatch(/^native-cpu:/);
  });

  it('takes fewer launches with fusion than without', async () => {
    const model = tinyLlama('f16', 'f16', 'f32', 'f16');
    const runsWith = async (launches: number) => {
      const session = await chooseBackend({}).backend.load(model.plan, writeWeights(model, folder), model.limits);
      const [first, second] = schedules['token by token']!;
      await session.step(first!); // counting begins after it
      process.env.ENGINE_EMULATED_FAILURE = String(launches + 1);
      const step = session.step(second!);
      const enough = await step.then(
        () => true,
        () => false,
      );
      delete process.env.ENGINE_EMULATED_FAILURE;
      await session.dispose();
      return enough;
    };
    expect(await runsWith(20)).toBe(true);
    process.env.ENGINE_CUDA_FUSION = 'off';
    expect(await runsWith(20)).toBe(false);
    expect(await runsWith(60)).toBe(true);
  });

  it('is the CPU where the GPU is too old, and says so', () => {
    process.env.ENGINE_EMULATED_CAPABILITY = '75';
    const { backend, fallbackReason } = chooseBackend({});
    expect(backend.name).toMatch(/^native-cpu:/);
    expect(fallbackReason).toBe('no GPU is used: Emulated GPU has compute capability 7.5; kernels need 8.0 or later');
    expect(() => chooseBackend({ backend: 'native-cuda' })).toThrow(/compute capability 7\.5/);
  });

  it('is the CPU where there is no GPU', () => {
    process.env.ENGINE_EMULATED_NONE = '1';
    expect(chooseBackend({}).backend.name).toMatch(/^native-cpu:/);
    expect(() => chooseBackend({ backend: 'native-cuda' })).toThrow(/no GPU that CUDA can use, or no driver/);
  });
});
