/** A row of numbers, one for each label: bars from zero, or points joined by a line that have a scale of their own. */
export interface ChartPanel {
  readonly title: string;
  readonly kind: 'bars' | 'line';
  readonly values: readonly number[];
  /** How a value is written at its bar or point. */
  readonly format: (value: number) => string;
}

export interface BarChart {
  readonly title: string;
  /** Small print: what was measured, and on what. */
  readonly subtitle: string;
  readonly labels: readonly string[];
  readonly panels: readonly ChartPanel[];
}

/** Pixels. */
const WIDTH = 760;
const MARGIN = 24;
const HEADER = 64;
const PANEL_TITLE = 26;
/** Between a panel's title and its bars: room for the value on the highest. */
const VALUE = 18;
const BARS = 130;
const LINE = 70;
const LABELS = 26;
const GAP = 18;
/** Part of its column that a bar is wide. */
const BAR_PART = 0.56;

/** Readable on a light and on a dark page: no background, and text that follows the reader's scheme. */
const STYLE = `text{font:13px system-ui,sans-serif;fill:#57606a}.title{font-size:17px;font-weight:600;fill:#24292f}
.panel{font-weight:600}.bar{fill:#3f83c9}.bar.last{fill:#2da44e}.line{fill:none;stroke:#d1822a;stroke-width:2.5}
.point{fill:#d1822a}.axis{stroke:#8c959f;stroke-width:1}
@media(prefers-color-scheme:dark){text{fill:#9da7b3}.title{fill:#e6edf3}.bar{fill:#58a6ff}.bar.last{fill:#3fb950}}`;

/** An SVG document: panels one above the other, with a column for each label. */
export function drawBarChart({ title, subtitle, labels, panels }: BarChart): string {
  const column = (WIDTH - 2 * MARGIN) / labels.length;
  const center = (i: number) => MARGIN + column * (i + 0.5);
  const parts: string[] = [];
  let y = HEADER;
  for (const panel of panels) {
    parts.push(text(MARGIN, y + 14, panel.title, 'panel'));
    y += PANEL_TITLE + VALUE;
    const height = panel.kind === 'bars' ? BARS : LINE;
    parts.push(...(panel.kind === 'bars' ? bars(panel, y, column, center) : line(panel, y, center)));
    y += height + GAP;
  }
  labels.forEach((label, i) => {
    parts.push(text(center(i), y + 4, label, 'label', 'middle'));
  });
  const height = y + LABELS;
  return [
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}" role="img" aria-label="${escaped(title)}">`,
    `<style>${STYLE}</style>`,
    text(MARGIN, 26, title, 'title'),
    text(MARGIN, 47, subtitle, 'small'),
    ...parts,
    '</svg>\n',
  ].join('\n');
}

function bars({ values, format }: ChartPanel, top: number, column: number, center: (i: number) => number): string[] {
  const highest = Math.max(...values, Number.MIN_VALUE);
  const bottom = top + BARS;
  const width = column * BAR_PART;
  return [
    ...values.flatMap((value, i) => {
      const height = Math.max(1, (BARS * value) / highest);
      const x = center(i) - width / 2;
      const kind = i === values.length - 1 ? 'bar last' : 'bar';
      return [
        `<rect class="${kind}" x="${px(x)}" y="${px(bottom - height)}" width="${px(width)}" height="${px(height)}" rx="3"/>`,
        text(center(i), bottom - height - 6, format(value), 'value', 'middle'),
      ];
    }),
    `<line class="axis" x1="${MARGIN}" y1="${bottom}" x2="${WIDTH - MARGIN}" y2="${bottom}"/>`,
  ];
}

/** A panel of points spans at least this part of the lowest value, so that small differences look small. */
const LEAST_RANGE = 0.05;

/** From the lowest to the highest value: zero may be far away. */
function line({ values, format }: ChartPanel, top: number, center: (i: number) => number): string[] {
  const lowest = Math.min(...values);
  const range = Math.max(Math.max(...values) - lowest, LEAST_RANGE * Math.abs(lowest), Number.MIN_VALUE);
  const heightOf = (value: number) => top + LINE - (LINE * (value - lowest)) / range;
  const points = values.map((value, i) => `${px(center(i))},${px(heightOf(value))}`);
  return [
    `<polyline class="line" points="${points.join(' ')}"/>`,
    ...values.flatMap((value, i) => [
      `<circle class="point" cx="${px(center(i))}" cy="${px(heightOf(value))}" r="4"/>`,
      text(center(i), heightOf(value) - 10, format(value), 'value', 'middle'),
    ]),
  ];
}

function text(x: number, y: number, content: string, kind: string, anchor: 'start' | 'middle' = 'start'): string {
  return `<text class="${kind}" x="${px(x)}" y="${px(y)}" text-anchor="${anchor}">${escaped(content)}</text>`;
}

function px(value: number): string {
  return String(Math.round(value * 10) / 10);
}

const entities: Readonly<Record<string, string>> = { '&': '&amp;', '<': '&lt;', '>': '&gt;', '"': '&quot;' };

/** Names come from files: none of them may end an element, or hold what XML does not allow. */
function escaped(content: string): string {
  // biome-ignore lint/suspicious/noControlCharactersInRegex: removing them is the point
  return content.replace(/[\u0000-\u001f\ufffe\uffff]|[\ud800-\udfff]/gu, ' ').replace(/[&<>"]/g, (c) => entities[c]!);
}
