import { expect, test } from 'vitest';
import { Engine } from '../../src/library/engine.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { expectEngineError } from '../formats/engine-error.js';
import { tinyLlama, writeCheckpoint } from '../model/tiny-checkpoint.js';

const model = writeCheckpoint(temporaryFolder(), tinyLlama());
const tokenIds = [1, 5, 30, 7];

async function logitsWith(quantize?: 'none' | 'int8' | 'int4'): Promise<Float32Array> {
  await using engine = await Engine.load({ model, backend: 'reference', quantize });
  return await engine.logits(tokenIds); // before the engine is disposed
}

test('a model is quantised while it is loaded, if that is asked for', async () => {
  const exact = await logitsWith();
  expect(await logitsWith('none')).toEqual(exact);
  const distance = (logits: Float32Array) => Math.hypot(...logits.map((value, i) => value - exact[i]!));
  const [eight, four] = [distance(await logitsWith('int8')), distance(await logitsWith('int4'))];
  expect(eight).toBeGreaterThan(0);
  expect(four).toBeGreaterThan(4 * eight);
  expect(four).toBeLessThan(Math.hypot(...exact) / 4);
});

test('an unknown type is refused before anything is read', async () => {
  await expectEngineError(
    () => Engine.load({ model: '/nowhere', backend: 'reference', quantize: 'int5' as 'int4' }),
    'OPTION_INVALID',
    'quantize is "int5"',
    'none, int8, int4',
  );
});
