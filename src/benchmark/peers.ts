import { EngineError } from '../base/errors.js';
import type { Contender, ContenderRun } from './contender.js';
import { decodeBytes, modelCost } from './model-cost.js';
import type { BenchModel, BenchRow } from './report.js';
import type { SpeedKind } from './speed.js';
import { summarize, summarizeRatios } from './statistics.js';
import type { Workload } from './throughput.js';

export interface PeersOptions extends ContenderRun {
  readonly ours: Contender;
  readonly opponents: readonly Contender[];
  /** Tokens are compared after it. */
  readonly promptIds: Int32Array;
  readonly workloads: readonly (Workload & { readonly kind: SpeedKind })[];
  /** Of all contenders in turn. */
  readonly rounds: number;
  /** Measurements in each round, of which the median counts. */
  readonly runs: number;
  readonly onProgress?: ((what: string) => void) | undefined;
}

export interface PeersResult {
  readonly model: Omit<BenchModel, 'name'>;
  readonly rows: readonly BenchRow[];
  /** Tokens that were the same, by opponent; opponents that generate none are not in it. */
  readonly agreement: ReadonlyMap<string, Agreement>;
}

/** Greedy tokens before the first difference. */
export interface Agreement {
  readonly leading: number;
  readonly compared: number;
}

/** Greedy tokens. */
const COMPARED_TOKENS = 32;

/**
 * Times contenders in turn, A B A B, after comparing their greedy tokens. A ratio is ours to an opponent's within one
 * round. Throws TOKENS_DIFFER if already the first token is another one: then it is not the same model that is timed.
 */
export async function comparePeers(options: PeersOptions): Promise<PeersResult> {
  const { ours, opponents, workloads, rounds, onProgress, ...run } = options;
  const agreement = await compareTokens(options);
  const rows: BenchRow[] = [];
  for (const { kind, ...workload } of workloads) {
    const contenders = [ours, ...opponents];
    const rates = contenders.map((): (number | null)[] => []);
    for (let round = 1; round <= rounds; round++) {
      for (const [index, contender] of contenders.entries()) {
        onProgress?.(`${kind} × ${workload.batch}, round ${round} of ${rounds}: ${contender.name}`);
        const samples = await contender.measure({ ...run, kind, workload });
        rates[index]!.push(samples === null ? null : summarize(samples).median);
      }
    }
    for (const [index, contender] of contenders.entries()) {
      const own = rates[index]!.filter((rate) => rate !== null);
      if (own.length !== rounds) continue; // it cannot measure this
      const first = rates[0]!.filter((rate) => rate !== null);
      const ratio = contender === ours ? null : summarizeRatios(first, own);
      rows.push({
        ...(await makeRow(contender, kind, workload, own, run)),
        ...(ratio !== null && { ratio }),
        ...(agreement.has(contender.name) && equalTokens(agreement.get(contender.name)!)),
      });
    }
  }
  const { model } = await modelCost(run.model, {});
  return { model, rows, agreement };
}

function equalTokens({ leading, compared }: Agreement): Pick<BenchRow, 'equal_leading_tokens' | 'compared_tokens'> {
  return { equal_leading_tokens: leading, compared_tokens: compared };
}

async function makeRow(
  contender: Contender,
  kind: SpeedKind,
  workload: Workload,
  rates: readonly number[],
  run: ContenderRun,
): Promise<BenchRow> {
  const cost = await modelCost(run.model, contender);
  const rate = summarize(rates);
  const bytes = kind === 'decode' ? decodeBytes(cost, workload) : null;
  return {
    name: kind,
    backend: contender.name,
    dtype: cost.dtype,
    threads: run.threads,
    batch: workload.batch,
    prompt_tokens: workload.promptTokens,
    generated_tokens: workload.generatedTokens,
    tokens_per_second: rate,
    ...(bytes !== null && { bytes_per_token: Math.round(bytes), gb_per_second: (bytes * rate.median) / 1e9 }),
  };
}

async function compareTokens(options: PeersOptions): Promise<Map<string, Agreement>> {
  const { ours, opponents, onProgress } = options;
  const run = { ...options, generatedTokens: COMPARED_TOKENS };
  onProgress?.('comparing tokens');
  const agreement = new Map<string, Agreement>();
  let expected: readonly number[] | null = null;
  for (const opponent of opponents) {
    const theirs = await opponent.greedy(run);
    if (theirs === null) continue;
    expected ??= (await ours.greedy(run))!;
    const leading = leadingEqual(expected, theirs);
    if (leading === 0) {
      const what = `${ours.name} and ${opponent.name} after the same prompt`;
      throw new EngineError('TOKENS_DIFFER', { what, first: expected.join(' '), second: theirs.join(' ') });
    }
    agreement.set(opponent.name, { leading, compared: Math.min(expected.length, theirs.length) });
  }
  return agreement;
}

function leadingEqual(a: readonly number[], b: readonly number[]): number {
  const different = a.findIndex((token, i) => token !== b[i]);
  return different < 0 ? a.length : different;
}
