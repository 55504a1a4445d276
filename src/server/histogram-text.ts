/** A histogram that was counted elsewhere. */
export interface CountedHistogram {
  readonly name: string;
  readonly help: string;
  readonly labels: Readonly<Record<string, string>>;
  /** Ascending, [n]. */
  readonly bounds: readonly number[];
  /** [n + 1] Observations by the first bound that they do not exceed; the last has those beyond. */
  readonly counts: readonly number[];
  /** Of all that was observed. */
  readonly sum: number;
}

/**
 * It as Prometheus reads it (text format 0.0.4). prom-client's histograms can only be filled one observation at a time.
 */
export function histogramText({ name, help, labels, bounds, counts, sum }: CountedHistogram): string {
  const own = Object.entries(labels).map(([label, value]) => `${label}="${escaped(value)}"`);
  const series = (suffix: string, value: number, ...more: string[]) =>
    `${name}_${suffix}{${[...more, ...own].join(',')}} ${value}`;
  let upTo = 0;
  const buckets = counts.map((count, i) => {
    upTo += count;
    return series('bucket', upTo, `le="${bounds[i] ?? '+Inf'}"`);
  });
  const lines = [`# HELP ${name} ${help}`, `# TYPE ${name} histogram`, ...buckets];
  return `${[...lines, series('sum', sum), series('count', upTo)].join('\n')}\n`;
}

function escaped(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('\n', '\\n').replaceAll('"', '\\"');
}
