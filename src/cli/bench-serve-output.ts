import { describeCommit, describeMachine } from '../benchmark/machine.js';
import type { BenchModel, BenchReport } from '../benchmark/report.js';
import type { Latency } from '../benchmark/serve/latency.js';
import type { ServeRow } from '../benchmark/serve/serve-row.js';
import type { Summary } from '../benchmark/statistics.js';
import { commandLine, formatColumns, machineLine, writeText } from './bench-output.js';
import { formatBytes, note, Output } from './output.js';

/** What is known of a model behind a URL. */
export interface RemoteModel {
  readonly name: string;
}

/** What `--json` writes. */
export interface ServeReport extends Omit<BenchReport, 'model' | 'rows'> {
  readonly model: BenchModel | RemoteModel;
  readonly seed: number;
  readonly rows: readonly ServeRow[];
}

/** Throws FILE_UNWRITABLE. */
export async function printServeReport(
  model: BenchModel | RemoteModel,
  seed: number,
  rows: readonly ServeRow[],
  json: string | true | undefined,
): Promise<void> {
  const command = commandLine();
  const report: ServeReport = { machine: describeMachine(), commit: describeCommit(), command, model, seed, rows };
  for (const row of rows) noteFailures(row);
  const output = new Output();
  if (json === true) return output.json(report);
  await output.write(formatServeReport(report));
  if (json !== undefined) writeText(json, `${JSON.stringify(report, null, 2)}\n`);
}

function noteFailures(row: ServeRow): void {
  if (row.failed === 0) return;
  const reasons = Object.entries(row.errors).map(([reason, count]) => `${count} × ${reason}`);
  note(`${whatOf(row)}, ${row.backend}: ${row.failed} of ${row.requests} requests failed: ${reasons.join('; ')}`);
}

function formatServeReport({ machine, model, rows }: ServeReport): string {
  const tables = [
    formatColumns(clientTitles, rows.map(clientCells), 2),
    formatColumns(timeTitles, rows.map(timeCells), 2),
    formatColumns(serverTitles, rows.map(serverCells), 2),
  ];
  return `${[model.name, machineLine(machine)].join('\n')}\n\n${tables.join('\n')}`;
}

function whatOf({ arrivals, request_rate, trace, prefix }: ServeRow): string {
  const how = arrivals === 'closed' ? 'closed loop' : arrivals === 'poisson' ? `poisson ${request_rate}/s` : trace!;
  return prefix === undefined ? how : `${how}, ${prefix} prefix`;
}

const clientTitles = [
  'load',
  'server',
  'at once',
  'prompt',
  'answer',
  'done',
  'failed',
  'requests/s',
  'tokens/s',
  'from … to',
  'with prompts',
  'goodput/s',
  'ratio',
  'from … to',
  'client CPU',
];

function clientCells(row: ServeRow): string[] {
  return [
    whatOf(row),
    row.backend,
    row.batch === 0 ? '' : String(row.batch),
    String(row.prompt_tokens),
    String(row.generated_tokens),
    String(row.requests - row.failed),
    String(row.failed),
    row.requests_per_second.median.toFixed(2),
    short(row.tokens_per_second.median),
    range(row.tokens_per_second, short),
    short(row.total_tokens_per_second.median),
    row.goodput?.median.toFixed(2) ?? '',
    row.ratio?.median.toFixed(2) ?? '',
    range(row.ratio, (value) => value.toFixed(2)),
    `${row.client_cpu_percent.toFixed(0)} %`,
  ];
}

const times = ['ttft_ms', 'itl_ms', 'e2e_ms'] as const;
const timeTitles = [
  'milliseconds',
  'server',
  'at once',
  ...['TTFT', 'ITL', 'E2E'].flatMap((name) => [`${name} 50 %`, '95 %', '99 %']),
  'TPOT mean',
  'sooner: TTFT',
  'ITL',
  'cold/warm TTFT',
];

function timeCells(row: ServeRow): string[] {
  const cells = (latency: Latency | undefined) =>
    latency === undefined ? ['', '', ''] : [latency.p50, latency.p95, latency.p99].map(short);
  return [
    whatOf(row),
    row.backend,
    row.batch === 0 ? '' : String(row.batch),
    ...times.flatMap((name) => cells(row[name])),
    row.tpot_ms === undefined ? '' : short(row.tpot_ms.mean),
    row.ttft_ratio?.median.toFixed(2) ?? '',
    row.itl_ratio?.median.toFixed(2) ?? '',
    row.ttft_cold_to_warm?.median.toFixed(2) ?? '',
  ];
}

const serverTitles = [
  'said by the server',
  'server',
  'at once',
  'TTFT 50 %',
  '99 %',
  'ITL 50 %',
  '99 %',
  'prefix hits',
  'preempted',
  'loop late 99 %',
  'RSS start',
  'warm',
  'end',
  'a minute',
];

function serverCells({ server, rss_bytes: rss, ...row }: ServeRow): string[] {
  const milliseconds = (value: number | undefined) => (value === undefined ? '' : short(value));
  const late = server?.event_loop_delay_ms?.p99;
  const slope = rss?.slope_per_minute;
  return [
    whatOf(row),
    row.backend,
    row.batch === 0 ? '' : String(row.batch),
    milliseconds(server?.ttft_ms?.p50),
    milliseconds(server?.ttft_ms?.p99),
    milliseconds(server?.itl_ms?.p50),
    milliseconds(server?.itl_ms?.p99),
    server?.prefix_hit_rate === undefined ? '' : `${(100 * server.prefix_hit_rate).toFixed(0)} %`,
    server?.preemptions?.toString() ?? '',
    late === undefined ? '' : `${late.toFixed(1)} ms`,
    rss === undefined ? '' : formatBytes(rss.start),
    rss === undefined ? '' : formatBytes(rss.after_warmup),
    rss === undefined ? '' : formatBytes(rss.end),
    slope === undefined ? '' : `${slope < 0 ? '-' : '+'}${formatBytes(Math.abs(slope))}`,
  ];
}

function range(summary: Summary | undefined, format: (value: number) => string): string {
  if (summary === undefined || summary.runs < 2) return '';
  return `${format(summary.min)} … ${format(summary.max)}`;
}

/** At least three digits. */
function short(value: number): string {
  return value.toFixed(value < 10 ? 2 : value < 100 ? 1 : 0);
}
