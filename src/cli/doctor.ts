import { existsSync, statSync } from 'node:fs';
import { cpus, freemem, totalmem } from 'node:os';
import { Command } from 'commander';
import { nativeInfo } from '../backend/native.js';
import { cudaInfo, kernelChoice } from '../backend/native-cuda.js';
import { Peaks } from '../benchmark/peaks.js';
import { chooseBackend } from '../library/choose-backend.js';
import { embeddedModel } from '../library/embedded-model.js';
import { formatBytes, formatTable, Output } from './output.js';

export function doctorCommand(): Command {
  return new Command('doctor')
    .description('what this machine has, what will be used, and why')
    .option('--measure', 'also measure how fast memory is read; takes a second')
    .option('--json', 'print one JSON object')
    .action(doctor);
}

async function doctor(flags: { readonly json?: boolean; readonly measure?: boolean }): Promise<void> {
  const report = { ...examine(), ...(flags.measure && { read_gb_per_second: await readRates() }) };
  const output = new Output();
  await (flags.json ? output.json(report) : output.write(format(report)));
}

function examine() {
  const native = nativeInfo();
  const cuda = cudaInfo();
  const { backend, fallbackReason } = chooseBackend({});
  return {
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    cpu: cpus()[0]?.model.trim() ?? 'unknown',
    processors: native.threads.processors,
    cores: native.threads.cores,
    cpu_quota: native.threads.quota,
    threads: native.threads.threads,
    memory_bytes: totalmem(),
    free_memory_bytes: freemem(),
    copy_gb_per_second: copyRate(),
    addon: native.binary,
    addon_failures: native.binary === null ? native.failures : [],
    instruction_sets: native.isas,
    instruction_set: native.isa,
    instruction_set_limit: process.env.ENGINE_CPU_ISA || null,
    backend: backend.name,
    fallback_reason: fallbackReason,
    gpus: cuda.devices.map((device) => ({ ...device, kernels: device.usable ? kernelChoice(device) : null })),
    gpu_library: cuda.library,
    gpu_problem: cuda.problem,
    embedded_model: existsSync(embeddedModel) ? { path: embeddedModel, bytes: statSync(embeddedModel).size } : null,
  };
}

/** Bytes read plus bytes written per second of copying memory far larger than the caches with one thread: the best of a few. */
function copyRate(): number {
  const bytes = 128 * 1024 * 1024;
  const from = Buffer.alloc(bytes, 1);
  const to = Buffer.alloc(bytes, 2);
  let best = Number.POSITIVE_INFINITY;
  for (let run = 0; run < 5; run++) {
    const start = performance.now();
    from.copy(to);
    best = Math.min(best, performance.now() - start);
  }
  return (2 * bytes) / best / 1e6;
}

/** By number of threads: of one, and of as many as a model uses. Throws BACKEND_UNAVAILABLE. */
async function readRates(): Promise<Record<number, number>> {
  const peaks = new Peaks();
  const counts = [...new Set([1, nativeInfo().threads.threads])];
  for (const threads of counts) await peaks.sample(threads, null);
  return Object.fromEntries(counts.map((threads) => [threads, peaks.gbPerSecond(threads)!.median]));
}

type Report = ReturnType<typeof examine> & { readonly read_gb_per_second?: Readonly<Record<number, number>> };

function gpuRows({ gpus, gpu_library, gpu_problem }: Report): [string, string][] {
  const rows = gpus.flatMap(({ name, computeCapability, driver, kernels, ...gpu }): [string, string][] => {
    const rate =
      gpu.memoryBytesPerSecond === 0 ? '' : `, ${(gpu.memoryBytesPerSecond / 1e9).toFixed(0)} GB/s by datasheet`;
    return [
      ['gpu', `${name}, compute capability ${computeCapability}, driver for CUDA ${driver}`],
      ['', `${formatBytes(gpu.memory)}, ${formatBytes(gpu.freeMemory)} free${rate}`],
      ...(kernels === null ? [] : [['', kernels] as [string, string]]),
    ];
  });
  const library: [string, string][] = gpu_library === null ? [] : [['gpu kernels', gpu_library]];
  return [
    ...rows,
    ...(gpu_problem === null ? [] : [['gpu', `not used: ${gpu_problem}`] as [string, string]]),
    ...library,
  ];
}

function format(report: Report): string {
  const quota = report.cpu_quota === null ? '' : `, of which a quota allows ${report.cpu_quota}`;
  const limit = report.instruction_set_limit === null ? '' : ` (ENGINE_CPU_ISA=${report.instruction_set_limit})`;
  return formatTable([
    ['node', `${report.node} on ${report.platform}`],
    ['processor', `${report.cpu}, ${report.processors} processors on ${report.cores} cores${quota}`],
    ['threads', `${report.threads} a model, unless --threads says otherwise`],
    ['memory', `${formatBytes(report.memory_bytes)}, ${formatBytes(report.free_memory_bytes)} free`],
    ['copy rate', `${report.copy_gb_per_second.toFixed(1)} GB/s on one thread (bytes read and written)`],
    ...Object.entries(report.read_gb_per_second ?? {}).map(
      ([threads, rate]) =>
        ['read rate', `${rate.toFixed(1)} GB/s on ${threads} ${threads === '1' ? 'thread' : 'threads'}`] as const,
    ),
    ['addon', report.addon ?? 'none'],
    ...report.addon_failures.map(({ path, reason }) => ['', `${path}: ${reason}`] as const),
    [
      'instruction set',
      `${report.instruction_set ?? 'none'} of ${report.instruction_sets.join(', ') || 'none'}${limit}`,
    ],
    ...gpuRows(report),
    ['backend', report.backend],
    ...(report.fallback_reason === null ? [] : [['', report.fallback_reason] as const]),
    [
      'embedded model',
      report.embedded_model ? `${report.embedded_model.path}, ${formatBytes(report.embedded_model.bytes)}` : 'missing',
    ],
  ]);
}
