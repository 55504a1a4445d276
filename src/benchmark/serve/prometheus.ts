/** Samples of a page of metrics by name; those that differ only in labels are added, buckets of histograms by `le`. */
export type Samples = ReadonlyMap<string, number>;

/** Lines of a page that are read. */
const MAX_LINES = 100_000;

/** Reads Prometheus' text format; lines that are none of it are passed over. */
export function parseMetrics(text: string): Samples {
  const samples = new Map<string, number>();
  for (const line of text.split('\n', MAX_LINES)) {
    const [, name, labels = '', written] = /^([\w:]+)(?:\{(.*)\})?\s+(\S+)/.exec(line) ?? [];
    const value = Number(written === '+Inf' ? Number.POSITIVE_INFINITY : written);
    if (name === undefined || Number.isNaN(value)) continue;
    const bound = name.endsWith('_bucket') ? /(?:^|,)\s*le="([^"]*)"/.exec(labels)?.[1] : undefined;
    const key = bound === undefined ? name : `${name} ${bound === '+Inf' ? 'Infinity' : Number(bound)}`;
    samples.set(key, (samples.get(key) ?? 0) + value);
  }
  return samples;
}

/** What was added between two pages; a server that started again has begun from 0. */
export function difference(before: Samples, after: Samples): Samples {
  return new Map([...after].map(([key, value]) => [key, Math.max(0, value - (before.get(key) ?? 0))]));
}

export function sumOf(all: readonly Samples[]): Samples {
  const sum = new Map<string, number>();
  for (const samples of all) for (const [key, value] of samples) sum.set(key, (sum.get(key) ?? 0) + value);
  return sum;
}

/**
 * A percentile of a histogram, interpolated within its bucket as Prometheus' histogram_quantile does; null if it is
 * empty. Above the last bound it is that bound.
 *
 * @param percent 0 to 100
 */
export function histogramPercentile(samples: Samples, name: string, percent: number): number | null {
  const prefix = `${name}_bucket `;
  const buckets = [...samples]
    .filter(([key]) => key.startsWith(prefix))
    .map(([key, count]) => ({ bound: Number(key.slice(prefix.length)), count })) // counts of all at most the bound
    .sort((a, b) => a.bound - b.bound);
  const total = buckets.at(-1)?.count ?? 0;
  if (total === 0) return null;
  const rank = (percent / 100) * total;
  const index = buckets.findIndex(({ count }) => count >= rank);
  const below = buckets[index - 1] ?? { bound: 0, count: 0 };
  const { bound, count } = buckets[index]!;
  if (bound === Number.POSITIVE_INFINITY || count === below.count) return below.bound;
  return below.bound + ((bound - below.bound) * (rank - below.count)) / (count - below.count);
}
