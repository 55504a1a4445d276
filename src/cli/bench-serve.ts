import { randomInt } from 'node:crypto';
import { basename, resolve } from 'node:path';
import { Argument, Command, Option } from 'commander';
import { nativeInfo } from '../backend/native.js';
import { EngineError } from '../base/errors.js';
import { modelCost } from '../benchmark/model-cost.js';
import type { BenchModel } from '../benchmark/report.js';
import { benchmarkServe, type ServeProgress } from '../benchmark/serve/serve.js';
import {
  type Contender,
  describeServer,
  engineServer,
  llamaServer,
  runningServer,
} from '../benchmark/serve/servers.js';
import { openModel } from '../formats/hub.js';
import { readModelConfig } from '../model/load.js';
import { type BenchModelFlags, benchModelFlags, withBenchModel } from './bench-model.js';
import { jsonFlag } from './bench-output.js';
import { type LoadShape, loadFlagsOfServe, loadPoints, loadShapeOf, type ServeLoadFlags } from './bench-serve-load.js';
import { printServeReport, type RemoteModel } from './bench-serve-output.js';
import { type BenchLoadFlags, benchLoadFlags, loadArguments, loadOptionsOf, thisProgram } from './bench-speed.js';
import { number } from './flags.js';
import { withInterrupt } from './interrupt.js';
import { ProgressBar } from './progress-bar.js';

interface ServeFlags extends BenchModelFlags, BenchLoadFlags, ServeLoadFlags {
  readonly url?: string;
  readonly apiKeyEnv?: string;
  readonly opponentBinary?: string;
  readonly json?: string | true;
}

const DEFAULT_ROUNDS = 3;

export function serveCommand(): Command {
  const command = new Command('serve')
    .description('latency and throughput of a server under load: ours, started for this, or any that speaks OpenAI')
    .addArgument(new Argument('[flags...]', 'after --: more flags for engine serve'))
    .addOption(new Option('--url <url>', 'a server that runs already, such as http://127.0.0.1:8080'))
    .addOption(new Option('--api-key-env <name>', 'environment variable with the key for that server'))
    .addOption(
      new Option(
        '--opponent-binary <path>',
        'a llama-server, which is given the same GGUF file, threads and load in turn',
      ),
    );
  for (const flag of [...benchModelFlags(), ...benchLoadFlags()]) {
    if (flag.long !== '--seed') command.addOption(flag);
  }
  for (const flag of loadFlagsOfServe()) command.addOption(flag);
  return command
    .addOption(number('--rounds <n>', `of all servers in turn; default ${DEFAULT_ROUNDS} with an opponent, else 1`))
    .addOption(jsonFlag())
    .action(serve);
}

async function serve(serverFlags: readonly string[], flags: ServeFlags): Promise<void> {
  const shape = loadShapeOf(flags);
  await withInterrupt((signal) =>
    flags.url === undefined
      ? withBenchModel(withoutSeed(flags), signal, (path) => measureModel(path, shape, serverFlags, flags, signal))
      : measureUrl(checkUrl(flags.url), shape, serverFlags, flags, signal),
  );
}

/** A seed here is that of prompts and arrivals; synthetic models have 0. */
function withoutSeed({ seed: _, ...flags }: ServeFlags): BenchModelFlags {
  return flags;
}

/** Servers that are started here, on one model. */
async function measureModel(
  path: string,
  shape: LoadShape,
  serverFlags: readonly string[],
  flags: ServeFlags,
  signal: AbortSignal,
): Promise<void> {
  const source = await openModel(path);
  const { opponentBinary } = flags;
  if (opponentBinary !== undefined && source.format !== 'gguf') {
    const expected = 'a GGUF file, for llama.cpp reads no other';
    throw new EngineError('OPTION_INVALID', { option: '--model', value: path, expected });
  }
  const { vocabSize, contextLength } = readModelConfig(source);
  const contextSize = shape.contextSize(contextLength);
  const threads = flags.threads ?? nativeInfo().threads.threads;
  const slots = Math.max(...shape.concurrencies.map((concurrency) => concurrency ?? DEFAULT_SLOTS));
  const ownFlags = [...loadArguments({ ...flags, threads }), ...sizeArguments(slots, contextSize), ...serverFlags];
  const servers = [engineServer(thisProgram(), source.path, ownFlags)];
  if (opponentBinary !== undefined) {
    servers.push(llamaServer(resolve(opponentBinary), { model: source.path, threads, slots, contextSize }));
  }
  const { model, dtype } = await modelCost(source.path, loadOptionsOf(flags));
  const target = { vocabSize, contextSize, seed: flags.seed ?? 0, labels: { dtype, threads } };
  await measure(servers, { name: basename(source.path), ...model }, target, shape, flags, signal);
}

/** Answers computed at once where the load has no limit, by both servers. */
const DEFAULT_SLOTS = 16;
/** What ours allows. */
const MAX_SEQUENCES = 256;
/** Ids that any vocabulary has, for a server that does not say how large its own is. */
const LEAST_VOCABULARY = 512;
const DEFAULT_CONTEXT_SIZE = 4096;
const MAX_SEED = 2 ** 32 - 1;

/** The same room for keys and values, and as many answers at once, as llama.cpp's server is given. */
function sizeArguments(slots: number, contextSize: number): string[] {
  const sequences = Math.min(slots, MAX_SEQUENCES);
  return ['--context-size', contextSize, '--batch-size', sequences, '--max-sequences', sequences].map(String);
}

async function measureUrl(
  url: string,
  shape: LoadShape,
  serverFlags: readonly string[],
  flags: ServeFlags,
  signal: AbortSignal,
): Promise<void> {
  const unused = [...ownServerFlags(flags), ...serverFlags][0];
  if (unused !== undefined) {
    const expected = 'no --url, which names a server that is not started here';
    throw new EngineError('OPTION_INVALID', { option: unused, value: unused, expected });
  }
  const apiKey = apiKeyOf(flags.apiKeyEnv);
  const described = await describeServer(url, apiKey, signal);
  const vocabSize = flags.vocabSize ?? described.vocabSize ?? LEAST_VOCABULARY;
  const contextSize = shape.contextSize(described.contextSize ?? DEFAULT_CONTEXT_SIZE);
  // The server remembers prompts of an earlier run: the same ones again would find them.
  const target = { vocabSize, contextSize, seed: flags.seed ?? randomInt(MAX_SEED), labels: {} };
  await measure([runningServer(url)], { name: described.model }, target, shape, flags, signal, apiKey);
}

async function measure(
  servers: readonly Contender[],
  model: BenchModel | RemoteModel,
  target: Parameters<typeof loadPoints>[1],
  shape: LoadShape,
  flags: ServeFlags,
  signal: AbortSignal,
  apiKey?: string,
): Promise<void> {
  const rounds = flags.rounds ?? (servers.length > 1 ? DEFAULT_ROUNDS : 1);
  const bar = new ProgressBar('serve:');
  const onProgress = ({ what, done, total, failed }: ServeProgress) =>
    bar.show(done, total, failed === 0 ? what : `${what} ${failed} failed`);
  try {
    const { stream, sloTtftMs = null, sloItlMs = null } = flags;
    const objectives = { ttftMs: sloTtftMs, itlMs: sloItlMs };
    const points = loadPoints(shape, target);
    const rows = await benchmarkServe({ servers, points, rounds, stream, apiKey, objectives, signal, onProgress });
    bar.clear();
    await printServeReport(model, target.seed, rows, flags.json);
  } finally {
    bar.clear();
  }
}

/** Flags that were given and are about a server that this command starts. */
function ownServerFlags(flags: ServeFlags): string[] {
  const own = [...benchModelFlags(), ...benchLoadFlags()].filter(({ long }) => long !== '--seed');
  const values = flags as unknown as Readonly<Record<string, unknown>>;
  const given = own.filter((flag) => values[flag.attributeName()] !== undefined).map(({ long }) => long!);
  return flags.opponentBinary === undefined ? given : [...given, '--opponent-binary'];
}

function checkUrl(value: string): string {
  try {
    const { protocol, origin } = new URL(value);
    if (protocol === 'http:' || protocol === 'https:') return origin;
  } catch {
    // reported below
  }
  throw new EngineError('OPTION_INVALID', { option: '--url', value, expected: 'an address such as http://host:8080' });
}

function apiKeyOf(name: string | undefined): string | undefined {
  if (name === undefined) return undefined;
  const key = process.env[name];
  if (key !== undefined && key !== '') return key;
  const expected = 'the name of an environment variable that holds the key';
  throw new EngineError('OPTION_INVALID', { option: '--api-key-env', value: name, expected });
}
