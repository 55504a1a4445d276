import { beforeAll, describe, expect, it } from 'vitest';
import type { Backend } from '../../src/backend/backend.js';
import { nativeCudaBackend } from '../../src/backend/native-cuda.js';
import { ReferenceInterpreter } from '../../src/backend/reference.js';
import { type OpCase, writeWeights } from '../backend/case-builder.js';
import { expectClose } from '../backend/compare.js';
import { opCases, packedOpCases } from '../backend/op-cases.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { BUILD_TIMEOUT, buildEmulatedCuda, noEmulatedCuda } from './emulated-cuda.js';

const folder = temporaryFolder();

/** A GPU has no 8-bit activations. */
const cases = [...opCases(), ...packedOpCases()].filter(({ name }) => !name.includes('q8 ') || name.includes('f32'));

async function run(backend: Backend, opCase: OpCase): Promise<Float32Array[]> {
  const session = await backend.load(opCase.plan, writeWeights(opCase, folder), opCase.limits);
  const outputs: Float32Array[] = [];
  for (const batch of opCase.steps) {
    await session.step(batch);
    for (const buffer of opCase.outputs) outputs.push(await session.read(buffer));
  }
  await session.dispose();
  return outputs;
}

describe.skipIf(noEmulatedCuda)(`ops on an emulated GPU${noEmulatedCuda ?? ''}`, () => {
  let library: string;
  beforeAll(async () => {
    library = await buildEmulatedCuda();
  }, BUILD_TIMEOUT);

  it.each(cases)('$name', { timeout: 60_000 }, async (opCase) => {
    const interpreter = new ReferenceInterpreter(opCase.plan, writeWeights(opCase, folder), opCase.limits);
    const outputs = await run(nativeCudaBackend({ library, precise: true, threads: 2 }), opCase);
    // Inputs are rows of float32 tables, of which 22 bits are kept: a key may become the neighbouring f16.
    const tolerance = Math.max(opCase.tolerance, opCase.name.includes('attention') ? 1e-4 : 1e-6);
    opCase.steps.forEach((batch, i) => {
      interpreter.step(batch);
      opCase.outputs.forEach((buffer, j) => {
        const actual = outputs[i * opCase.outputs.length + j]!;
        expectClose(actual, interpreter.read(buffer), tolerance, `step ${i}, output ${j}`);
      });
    });
    expect(outputs.length).toBeGreaterThan(0);
  });
});
