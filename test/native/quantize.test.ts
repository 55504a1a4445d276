import { execFile } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, statSync, utimesSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { Worker } from 'node:worker_threads';
import { describe, expect, it } from 'vitest';
import { type QuantiseRequest, quantisePanelsNatively } from '../../src/backend/native-quantise.js';
import { type ErrorModel, quantisePanel } from '../../src/quantization/quantise-panel.js';
import { type DType, dequantiseRows, matrixBytes } from '../../src/tensor/dtype.js';
import { PANEL_ROWS, type PackedDType, packedLayouts, panelBytes } from '../../src/tensor/packed.js';
import { isas, notBuilt } from '../backend/native-availability.js';
import { temporaryFolder } from '../backend/temporary-folder.js';
import { hostileRows, normalValues } from '../quantization/rows.js';
import { blockTypes, packedTypes, randomMatrix } from '../tensor/random-blocks.js';

const folder = temporaryFolder();
let numFiles = 0;

interface Shape {
  readonly dtype: DType;
  readonly rows: number;
  readonly columns: number;
  readonly transposedStride?: number;
}

/** A request for a matrix that is stored as these bytes, at an odd place in a file of its own. */
function inFile(bytes: Uint8Array, shape: Shape, target: PackedDType): QuantiseRequest {
  const file = join(folder, `${numFiles++}.bin`);
  writeFileSync(file, Buffer.concat([Buffer.alloc(3), bytes]));
  const { size, mtimeMs } = statSync(file);
  const source = { file, offset: 3, transposedStride: 0, ...shape };
  return { name: 'blk.0.ffn_up.weight', source, stamp: { size, mtimeMs }, target };
}

const bytesOf = (floats: Float32Array): Uint8Array =>
  new Uint8Array(floats.buffer, floats.byteOffset, floats.byteLength);

/** What the definition makes of floats [rows, columns]. */
function defined(floats: Float32Array, columns: number, target: PackedDType, errors?: ErrorModel): Uint8Array {
  const rows = floats.length / columns;
  const out = new Uint8Array(matrixBytes(target, rows, columns)!);
  for (let first = 0; first < rows; first += PANEL_ROWS) {
    const panel = new Float32Array(PANEL_ROWS * columns);
    panel.set(floats.subarray(first * columns, Math.min(first + PANEL_ROWS, rows) * columns));
    quantisePanel(target, panel, columns, out, (first / PANEL_ROWS) * panelBytes(target, columns), errors);
  }
  return out;
}

const same = (actual: Uint8Array, expected: Uint8Array): boolean => Buffer.compare(actual, expected) === 0;

describe.skipIf(notBuilt)(`quantising in native code${notBuilt ?? ''}`, () => {
  it.each(packedTypes)('gives the bytes of the definition on every instruction set: %s', async (target) => {
    const columns = packedLayouts[target].groupSize * 5;
    const floats = Float32Array.of(...normalValues(37 * columns, 1), ...hostileRows(columns));
    const expected = defined(floats, columns, target);
    const request = inFile(bytesOf(floats), { dtype: 'f32', rows: floats.length / columns, columns }, target);
    for (const isa of isas)
      expect(same((await quantisePanelsNatively({ ...request, isa })).bytes, expected), isa).toBe(true);
  });

  it.each(packedTypes)('uses calibration as the definition does: %s', async (target) => {
    const columns = 256;
    const floats = normalValues(16 * columns, 2);
    const weights = normalValues(columns, 3).map((value, k) => (k % 7 === 0 ? 0 : Math.min(value * value, 1)));
    const feedback = normalValues(columns * columns, 4, 0.05);
    const request = inFile(bytesOf(floats), { dtype: 'f32', rows: 16, columns }, target);
    const plain = await quantisePanelsNatively(request);
    for (const errors of [{ weights }, { feedback }, { weights, feedback }]) {
      const expected = defined(floats, columns, target, errors);
      expect(same(plain.bytes, expected)).toBe(false);
      for (const isa of isas) {
        expect(same((await quantisePanelsNatively({ ...request, errors, isa })).bytes, expected), isa).toBe(true);
      }
    }
  });

  it.each(blockTypes)('reads weights stored as %s', async (dtype) => {
    const [rows, columns] = [21, 512];
    const bytes = randomMatrix(dtype, rows, columns, 4);
    const floats = new Float32Array(rows * columns);
    dequantiseRows(dtype, bytes, columns, 0, rows, floats);
    const { bytes: actual } = await quantisePanelsNatively(inFile(bytes, { dtype, rows, columns }, 'int4'));
    expect(same(actual, defined(floats, columns, 'int4'))).toBe(true);
  });

  it('reads a slice of a transposed matrix', async () => {
    const [rows, columns, stride] = [40, 96, 53];
    const stored = normalValues(columns * stride, 6);
    const floats = Float32Array.from({ length: rows * columns }, (_, i) => {
      return stored[(i % columns) * stride + Math.floor(i / columns)]!;
    });
    const last = stored.subarray(0, (columns - 1) * stride + rows); // the slice ends with the file
    const request = inFile(bytesOf(last), { dtype: 'f32', rows, columns, transposedStride: stride }, 'int8');
    expect(same((await quantisePanelsNatively(request)).bytes, defined(floats, columns, 'int8'))).toBe(true);
  });

  it('gives any range of panels and the same sums with any number of threads', async () => {
    const [rows, columns] = [16 * 9 + 3, 64];
    const floats = normalValues(rows * columns, 7);
    const request = inFile(bytesOf(floats), { dtype: 'f32', rows, columns }, 'int4');
    const whole = await quantisePanelsNatively({ ...request, threads: 1 });
    expect(await quantisePanelsNatively({ ...request, threads: 5 })).toEqual(whole);
    const some = await quantisePanelsNatively({ ...request, firstPanel: 4, numPanels: 3, threads: 2 });
    const bytes = panelBytes('int4', columns);
    expect(same(some.bytes, whole.bytes.subarray(4 * bytes, 7 * bytes))).toBe(true);
  });

  it.each(packedTypes)('sums squared errors of %s', async (target) => {
    const [rows, columns] = [19, 256];
    const floats = normalValues(rows * columns, 8);
    const request = inFile(bytesOf(floats), { dtype: 'f32', rows, columns }, target);
    const { bytes, squaredError, squaredSum } = await quantisePanelsNatively(request);
    const decoded = new Float32Array(rows * columns);
    dequantiseRows(target, bytes, columns, 0, rows, decoded);
    const sum = (f: (value: number, i: number) => number) => floats.reduce((total, value, i) => total + f(value, i), 0);
    expect(squaredSum).toBeCloseTo(
      sum((value) => value ** 2),
      6,
    );
    expect(squaredError).toBeCloseTo(
      sum((value, i) => (value - decoded[i]!) ** 2),
      4,
    );
  });

  it('names the first value that is not finite, whatever thread finds it', async () => {
    const [rows, columns] = [160, 64];
    const floats = normalValues(rows * columns, 9);
    floats[70 * columns + 5] = Number.NaN;
    floats[70 * columns + 6] = Number.POSITIVE_INFINITY;
    floats[130 * columns] = Number.NEGATIVE_INFINITY;
    const request = inFile(bytesOf(floats), { dtype: 'f32', rows, columns }, 'int4');
    const parameters = { tensor: 'blk.0.ffn_up.weight', row: 70, column: 5, value: 'NaN' };
    for (const threads of [1, 4]) {
      await expect(quantisePanelsNatively({ ...request, threads })).rejects.toMatchObject({
        code: 'WEIGHT_NOT_FINITE',
        parameters,
      });
    }
  });

  it('refuses files that are missing, have changed or are too short', async () => {
    const shape = { dtype: 'f32', rows: 16, columns: 32 } as const;
    const request = inFile(bytesOf(normalValues(16 * 32, 10)), shape, 'int8');
    const { source, stamp } = request;
    const missing = { ...request, source: { ...source, file: join(folder, 'none') } };
    await expect(quantisePanelsNatively(missing)).rejects.toMatchObject({ code: 'FILE_NOT_FOUND' });
    const long = { ...request, source: { ...source, rows: 17 } };
    await expect(quantisePanelsNatively(long)).rejects.toMatchObject({ code: 'FORMAT_INVALID' });
    utimesSync(source.file, 1, 1);
    await expect(quantisePanelsNatively({ ...request, stamp })).rejects.toMatchObject({ code: 'FILE_CHANGED' });
  });

  it('ends soon after an abort, and leaves the event loop free', async () => {
    const [rows, columns] = [16 * 600, 1024];
    const request = inFile(new Uint8Array(rows * columns * 4), { dtype: 'f32', rows, columns }, 'int4');
    const controller = new AbortController();
    const done = quantisePanelsNatively({ ...request, threads: 1, isa: 'scalar', signal: controller.signal });
    let ticks = 0;
    const timer = setInterval(() => ticks++, 1);
    setTimeout(() => controller.abort(), 100);
    const start = performance.now();
    await expect(done).rejects.toMatchObject({ code: 'ABORTED' });
    clearInterval(timer);
    expect(ticks).toBeGreaterThan(10);
    expect(performance.now() - start).toBeLessThan(1500); // all of it takes 2 s and more
    const aborted = quantisePanelsNatively({ ...request, signal: AbortSignal.abort() });
    await expect(aborted).rejects.toMatchObject({ code: 'ABORTED' });
  });
});

const compiled = fileURLToPath(new URL('../../dist/backend/native-quantise.js', import.meta.url));
const notCompiled = notBuilt ?? (existsSync(compiled) ? null : ' (skipped: dist/ is not built, run npm run build:ts)');

describe.skipIf(notCompiled)(`quantising and the end of things${notCompiled ?? ''}`, () => {
  /** Begins what takes seconds with 600 panels, then ends as told. */
  const script = (end: string, numPanels = 600) => {
    const [rows, columns] = [16 * numPanels, 1024];
    const request = inFile(new Uint8Array(rows * columns * 4), { dtype: 'f32', rows, columns }, 'int4');
    return `import(${JSON.stringify(compiled)}).then(({ quantisePanelsNatively }) => {
      quantisePanelsNatively({ ...${JSON.stringify(request)}, threads: 2, isa: 'scalar' }).then(() => console.log('done'));
      setTimeout(() => { ${end} }, 50);
    });`;
  };

  it.each([
    ['a process that exits stops it', script('process.exit(0)'), ''],
    ['a process stays alive until it is done', script('', 20), 'done\n'],
  ])('%s', async (_, code, stdout) => {
    expect((await promisify(execFile)(process.execPath, ['-e', code])).stdout).toBe(stdout);
  });

  it('a worker that is terminated stops it', async () => {
    const start = performance.now();
    const worker = new Worker(script(`require('node:worker_threads').parentPort.postMessage(0)`), { eval: true });
    await once(worker, 'message');
    expect(await worker.terminate()).toBe(1);
    expect(performance.now() - start).toBeLessThan(5000);
  });
});
