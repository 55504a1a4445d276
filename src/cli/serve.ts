import { isIPv4 } from 'node:net';
import { basename } from 'node:path';
import { Command, Option } from 'commander';
import type { Logger } from 'pino';
import { EngineError } from '../base/errors.js';
import { wholeNumber } from '../base/whole-number.js';
import { openModel } from '../formats/hub.js';
import { embeddedModel, requireEmbeddedModel } from '../library/embedded-model.js';
import { Engine } from '../library/engine.js';
import { type LoadOptions, sessionLimits } from '../library/load-options.js';
import { loadModel } from '../model/load.js';
import { memoryPlan } from '../model/memory.js';
import { runServer } from '../server/lifecycle.js';
import { Metrics } from '../server/metrics.js';
import { playground } from '../server/playground.js';
import { type LogLevel, logLevels, openLog, RequestLog, withPromptLog } from '../server/request-log.js';
import { createServer } from '../server/server.js';
import { openTelemetry } from '../server/telemetry.js';
import { readApiKeys } from './api-keys.js';
import { choice, loadFlags, maxStepsFlag, number, promptCacheFlag, repeatable } from './flags.js';
import { note } from './output.js';

const defaults = {
  host: '127.0.0.1',
  port: 8080,
  maxSequences: 64,
  maxQueue: 512,
  maxPerKey: 256,
  requestTimeout: 600,
  drainTimeout: 30,
  logLevel: 'info',
} as const;

interface ServeFlags extends Omit<LoadOptions, 'maxWaiting' | 'signal'> {
  readonly host: string;
  readonly port: number;
  readonly apiKey?: readonly string[];
  readonly apiKeyFile?: string;
  readonly modelName?: string;
  readonly alias?: readonly string[];
  readonly corsOrigin?: readonly string[];
  readonly maxSequences: number;
  readonly maxQueue: number;
  readonly maxPerKey: number;
  readonly requestTimeout: number;
  readonly drainTimeout: number;
  readonly playground: boolean;
  readonly logLevel: LogLevel;
  readonly logPrompts?: boolean;
}

export function serveCommand(): Command {
  const command = new Command('serve').description('an HTTP server with the API of OpenAI; see docs/serving.md');
  for (const flag of loadFlags()) command.addOption(flag);
  const flags: Option[] = [
    new Option('--chat-template <path>', "Jinja file to use in place of the model's own chat template"),
    new Option('--host <address>', 'address to listen on; others than loopback need an API key').default(defaults.host),
    number('--port <n>', '0 is any that is free').default(defaults.port),
    repeatable('--api-key <[name:]key>', 'key that clients must send; repeatable; better in a file or ENGINE_API_KEY'),
    new Option('--api-key-file <path>', 'file with a key on each line, as NAME:KEY or KEY'),
    new Option('--model-name <name>', "the model's name in the API; default: its file's"),
    repeatable('--alias <name>', 'further name of the model; repeatable'),
    repeatable('--cors-origin <origin>', 'web pages of this origin may use the server; repeatable; * is all'),
    number('--max-sequences <n>', 'answers computed at once; the others wait').default(defaults.maxSequences),
    number(
      '--batch-size <n>',
      'answers of full context length whose keys and values fit; default: as many as a quarter of free memory holds, 4 to --max-sequences',
    ),
    maxStepsFlag(),
    number('--max-queue <n>', 'requests that may wait; more get 503').default(defaults.maxQueue),
    number('--max-per-key <n>', 'requests in progress for one API key; more get 429').default(defaults.maxPerKey),
    number('--request-timeout <seconds>', 'most time for one request').default(defaults.requestTimeout),
    number('--drain-timeout <seconds>', 'time for running requests to end after SIGTERM').default(
      defaults.drainTimeout,
    ),
    promptCacheFlag(),
    new Option('--no-prefix-cache', 'compute every prompt anew'),
    new Option('--no-playground', 'no web page at /'),
    choice('--log-level <level>', 'lines on stderr', logLevels).default(defaults.logLevel),
    new Option('--log-prompts', 'write what users ask to the log'),
  ];
  for (const flag of flags) command.addOption(flag);
  return command.action(serve);
}

async function serve(flags: ServeFlags): Promise<void> {
  checkFlags(flags);
  const apiKeys = await readApiKeys({ ...flags, variable: process.env.ENGINE_API_KEY });
  if (apiKeys.length === 0 && !isLoopback(flags.host)) {
    const expected = 'a loopback address such as 127.0.0.1, or an API key to guard it (--api-key-file)';
    throw new EngineError('OPTION_INVALID', { option: '--host', value: flags.host, expected });
  }
  const { log, writer } = openLog(flags.logLevel);
  process.once('exit', () => writer.finish());
  if (flags.logPrompts) log.warn('this log gets everything that users ask (--log-prompts)');

  const modelName = flags.modelName ?? nameOf(flags.model ?? embeddedModel);
  const loading = new AbortController();
  let startLoading: () => void = () => undefined;
  let engine: Engine | null = null;
  const loaded = new Promise<void>((resolve) => {
    startLoading = resolve;
  }).then(async () => {
    engine = await load(flags, log, loading.signal);
    return engine;
  });
  const metrics = new Metrics({ modelName, stats: () => engine?.stats() ?? null });
  const telemetry = await openTelemetry();
  const app = createServer({
    model: flags.logPrompts ? loaded.then((it) => withPromptLog(it, log)) : loaded,
    modelName,
    aliases: flags.alias ?? [],
    apiKeys,
    corsOrigins: flags.corsOrigin ?? [],
    limits: { requestsPerKey: flags.maxPerKey, deadlineMs: flags.requestTimeout * 1000 },
    observers: [metrics, new RequestLog(log), ...(telemetry === null ? [] : [telemetry])],
    metrics: () => metrics.scrape(),
    log,
    ...(flags.playground && { playground }),
  });
  try {
    await runServer(app, {
      ...flags,
      activity: app.activity,
      drainTimeoutMs: flags.drainTimeout * 1000,
      log,
      model: loaded,
      exit: (code) => void writer.written(LAST_LINES_MS).then(() => process.exit(code)),
      abortLoading: () => {
        loading.abort();
        startLoading(); // which fails at once
      },
      onListening: (url) => {
        startLoading(); // from now on /health says so
        // Whoever asked for any port has to know which, however quiet the log is.
        if (!log.isLevelEnabled('info')) note(`engine: listening on ${url}`);
      },
    });
  } finally {
    metrics.close();
    await writer.written(LAST_LINES_MS); // before the line about an error, if there is one
  }
}

/** Milliseconds that the log's last lines get to be written. */
const LAST_LINES_MS = 500;

/** Tokens generated before the server says that it is ready. They are in the engine's counts. */
const WARM_UP_TOKENS = 4;

async function load(flags: ServeFlags, log: Logger, signal: AbortSignal): Promise<Engine> {
  if (signal.aborted) throw new EngineError('ABORTED', {});
  const batchSize = flags.batchSize ?? (await batchSizeInMemory(flags));
  const engine = await Engine.load({ ...flags, batchSize, maxWaiting: flags.maxQueue, signal });
  if (engine.fallbackReason !== null) log.warn(engine.fallbackReason);
  // The first steps read the weights from their file and compile this program's code: 280 ms for the first token of the
  // embedded model on a busy machine, and 1 ms for those of later requests. Nobody should have to wait for that.
  try {
    await engine.complete({ tokenIds: [0], maxTokens: WARM_UP_TOKENS, ignoreEos: true, signal });
  } catch (error) {
    await engine.dispose(); // nobody else gets to know it
    throw error;
  }
  const { backend, contextSize, loadMs } = engine;
  const fields = { backend, context_size: contextSize, batch_size: batchSize, max_sequences: flags.maxSequences };
  log.info({ model: engine.model.name, ...fields, load_ms: Math.round(loadMs) }, 'ready');
  return engine;
}

/** Contexts whose keys and values fit in a quarter of the memory that is free: weights and other programs need the rest. */
async function batchSizeInMemory(flags: ServeFlags): Promise<number> {
  const model = loadModel(await openModel(flags.model ?? requireEmbeddedModel()), { activations: 'f32' });
  const { kvCache } = memoryPlan(model, sessionLimits({ ...flags, batchSize: 1 }, model.config));
  const fitting = Math.floor(process.availableMemory() / 4 / Math.max(1, kvCache));
  return Math.max(4, Math.min(fitting, flags.maxSequences));
}

const SECONDS_OF_A_DAY = 86_400;

/** What only the server knows; the engine checks its own options. */
function checkFlags(flags: ServeFlags): void {
  wholeNumber('--port', flags.port, 0, 65_535);
  wholeNumber('--max-queue', flags.maxQueue, 1, 1_000_000);
  wholeNumber('--max-per-key', flags.maxPerKey, 1, 1_000_000);
  wholeNumber('--request-timeout', flags.requestTimeout, 1, SECONDS_OF_A_DAY);
  wholeNumber('--drain-timeout', flags.drainTimeout, 0, SECONDS_OF_A_DAY);
  for (const origin of flags.corsOrigin ?? []) {
    if (origin === '*' || (URL.canParse(origin) && new URL(origin).origin === origin)) continue;
    const expected = 'an origin as browsers send it, such as https://example.com, or *';
    throw new EngineError('OPTION_INVALID', { option: '--cors-origin', value: origin, expected });
  }
}

function isLoopback(host: string): boolean {
  return host === 'localhost' || host === '::1' || (isIPv4(host) && host.startsWith('127.'));
}

/** models/story-q8_0.gguf → story-q8_0 */
function nameOf(path: string): string {
  return basename(path).replace(/\.(gguf|safetensors)$/, '');
}
