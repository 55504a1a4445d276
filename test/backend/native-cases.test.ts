import { describe, expect, it } from 'vitest';
import type { Backend } from '../../src/backend/backend.js';
import { nativeCpuBackend } from '../../src/backend/native.js';
import { ReferenceInterpreter } from '../../src/backend/reference.js';
import { type OpCase, writeWeights } from './case-builder.js';
import { expectClose } from './compare.js';
import { isas, notBuilt } from './native-availability.js';
import { opCases, packedOpCases } from './op-cases.js';
import { temporaryFolder } from './temporary-folder.js';

const folder = temporaryFolder();

/** Outputs of every step, in order. */
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

function runReference(opCase: OpCase): Float32Array[] {
  const interpreter = new ReferenceInterpreter(opCase.plan, writeWeights(opCase, folder), opCase.limits);
  return opCase.steps.flatMap((batch) => {
    interpreter.step(batch);
    return opCase.outputs.map((buffer) => interpreter.read(buffer));
  });
}

describe.skipIf(notBuilt)(`native ops${notBuilt ?? ''}`, () => {
  const others = notBuilt
    ? []
    : isas
        .flatMap((isa) => [1, 2, 3].map((threads) => ({ isa, threads })))
        .filter((v) => v.isa !== 'scalar' || v.threads !== 1);

  it.each([...opCases(), ...packedOpCases()])('$name', async (opCase) => {
    const scalar = await run(nativeCpuBackend({ isa: 'scalar', threads: 1 }), opCase);
    runReference(opCase).forEach((expected, i) => {
      expectClose(scalar[i]!, expected, opCase.tolerance, `output ${i}`);
    });
    for (const options of others) {
      // Chunks as small as can be: as many shares as there are.
      const outputs = await run(nativeCpuBackend({ ...options, chunkTime: 0 }), opCase);
      outputs.forEach((output, i) => {
        const what = `output ${i} with ${options.isa} and ${options.threads} threads`;
        expectClose(output, scalar[i]!, 0, what);
      });
    }
    expect(scalar.length).toBeGreaterThan(0);
  });
});
