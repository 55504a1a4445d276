/** A row of numbers, one for each label: bars from zero, or points joined by a line that have a scale of their own. */
export interface ChartPanel {
  readonly title: string;
  readonly kind: 'bars' | 'line';
  readonly values: readonly number[];
  /** Of bars: what each is compared with, as an outline of its height; null where there is nothing. */
  readonly outlines?: readonly (OutlinedValue | null)[];
  /** How a value is written at its bar or point. */
  readonly format: (value: number) => string;
}

export interface OutlinedValue {
  readonly value: number;
  /** Written above the bar. */
  readonly label: string;
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
/** More room, for an outline's label above it. */
const OUTLINE_LABEL = 16;
const BARS = 130;
const LINE = 70;
const LABELS = 26;
const GAP = 18;
/** Part of its column that a bar is wide. */
const BAR_PART = 0.56;
/** That an outline is wider than the bar. */
const OUTLINE_MARGIN = 8;

/** Readable on a light and on a dark page: no background, and text that follows the reader's scheme. */
const STYLE = `text{font:13px system-ui,sans-serif;fill:#57606a}.title{font-size:17px;font-weight:600;fill:#24292f}
.panel{font-weight:600}.bar{fill:#3f83c9}.bar.last{fill:#2da44e}.line{fill:none;stroke:#d1822a;stroke-width:2.5}
.point{fill:#d1822a}.outline{fill:none;stroke:#8c959f;stroke-width:1.5;stroke-dasharray:4 3}.axis{stroke:#8c959f;stroke-width:1}
@media(prefers-color-scheme:dark){text{fill:#9da7b3}.title{fill:#e6edf3}.bar{fill:#58a6ff}.bar.last{fill:#3fb950}}`;

/** An SVG document: panels one above the other, with a column for each label. */
export function drawBarChart({ title, subtitle, labels, panels }: BarChart): string {
  const column = (WIDTH - 2 * MARGIN) / labels.length;
  const center = (i: number) => MARGIN + column * (i + 0.5);
  const parts: string[] = [];
  let y = HEADER;
  for (const panel of panels) {
    parts.push(text(MARGIN, y + 14, panel.title, 'panel'));
    y += PANEL_TITLE + VALUE + (panel.outlines === undefined ? 0 : OUTLINE_LABEL);
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

function bars(panel: ChartPanel, top: number, column: number, center: (i: number) => number): string[] {
  const { values, outlines = [], format } = panel;
  const highest = Math.max(...values, ...outlines.map((outline) => outline?.value ?? 0), Number.MIN_VALUE);
  const bottom = top + BARS;
  const width = column * BAR_PART;
  return [
    ...values.flatMap((value, i) => {
      const heightOf = (amount: number) => Math.max(1, (BARS * amount) / highest);
      const rect = (kind: string, height: number, wide: number) =>
        `<rect class="${kind}" x="${px(center(i) - wide / 2)}" y="${px(bottom - height)}" width="${px(wide)}" height="${px(height)}" rx="3"/>`;
      const outline = outlines[i] ?? null;
      const label = bottom - Math.max(heightOf(value), heightOf(outline?.value ?? 0)) - 6;
      const bar = rect(i === values.length - 1 ? 'bar last' : 'bar', heightOf(value), width);
      if (outline === null) return [bar, text(center(i), label, format(value), 'value', 'middle')];
      return [
        bar,
        rect('outline', heightOf(outline.value), width + OUTLINE_MARGIN),
        text(center(i), label - OUTLINE_LABEL, format(value), 'value', 'middle'),
        text(center(i), label, outline.label, 'small', 'middle'),
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
