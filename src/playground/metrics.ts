/** One scrape: the sum of every series over its labels, and histograms as cumulative counts by upper bound. */
export interface Scrape {
  readonly values: ReadonlyMap<string, number>;
  readonly histograms: ReadonlyMap<string, Histogram>;
}

/** Cumulative counts, ascending by upper bound; the last bound is Infinity. */
export type Histogram = readonly (readonly [bound: number, count: number])[];

const MAX_LINES = 20_000;
const SAMPLE = /^([a-zA-Z_:][\w:]*)(?:\{(.*)\})?\s+(\S+)/;
const BOUND = /(?:^|,)\s*le="([^"]*)"/;

/** Reads Prometheus' text format (version 0.0.4). Lines that are not samples are left out. */
export function parseMetrics(text: string): Scrape {
  const values = new Map<string, number>();
  const bounds = new Map<string, Map<number, number>>();
  for (const line of text.split('\n', MAX_LINES)) {
    const [, name, labels = '', written] = SAMPLE.exec(line) ?? [];
    const value = numberOf(written);
    if (name === undefined || Number.isNaN(value)) continue;
    const bound = name.endsWith('_bucket') ? numberOf(BOUND.exec(labels)?.[1]) : Number.NaN;
    if (Number.isNaN(bound)) {
      values.set(name, (values.get(name) ?? 0) + value);
    } else {
      const histogram = name.slice(0, -'_bucket'.length);
      const counts = bounds.get(histogram) ?? new Map<number, number>();
      bounds.set(histogram, counts.set(bound, (counts.get(bound) ?? 0) + value));
    }
  }
  const histograms = new Map<string, Histogram>();
  for (const [name, counts] of bounds) {
    histograms.set(
      name,
      [...counts].sort(([a], [b]) => a - b),
    );
  }
  return { values, histograms };
}

/** What a histogram counted between two scrapes. */
export function since(now: Histogram, before: Histogram | undefined): Histogram {
  if (before === undefined) return now;
  const earlier = new Map(before);
  return now.map(([bound, count]) => [bound, Math.max(0, count - (earlier.get(bound) ?? 0))]);
}

/** How many observations a histogram holds. */
export function countOf(histogram: Histogram): number {
  return histogram.at(-1)?.[1] ?? 0;
}

/**
 * The value below which a share q of the observations lies, by linear interpolation within a bucket as Prometheus'
 * histogram_quantile does; beyond the last finite bound it is that bound. null without observations.
 */
export function quantile(histogram: Histogram, q: number): number | null {
  const total = countOf(histogram);
  if (total === 0) return null;
  const rank = q * total;
  let low = 0;
  let below = 0;
  for (const [bound, count] of histogram) {
    if (count >= rank && count > below) {
      if (bound === Number.POSITIVE_INFINITY) return low;
      return low + ((bound - low) * (rank - below)) / (count - below);
    }
    low = Number.isFinite(bound) ? bound : low;
    below = count;
  }
  return low;
}

function numberOf(written: string | undefined): number {
  if (written === undefined || written === '') return Number.NaN;
  return /^[+-]?Inf$/.test(written) ? Number(written.replace('Inf', 'Infinity')) : Number(written);
}
