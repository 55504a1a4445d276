import { expect, test } from 'vitest';
import { drawBarChart } from '../../src/benchmark/bar-chart.js';

const chart = {
  title: 'model "a" & <b>\u0000',
  subtitle: 'machine',
  labels: ['first', 'second', 'third'],
  panels: [
    { title: 'speed', kind: 'bars', values: [10, 0, 40], format: (value: number) => `${value} t/s` },
    { title: 'perplexity', kind: 'line', values: [7, 7.01, 7.35], format: (value: number) => value.toFixed(2) },
  ],
} as const;

const attributes = (svg: string, tag: string, name: string) =>
  [...svg.matchAll(new RegExp(`<${tag} [^>]*?\\b${name}="([^"]*)"`, 'g'))].map(([, value]) => value!);

test('a chart is well-formed XML', () => {
  const svg = drawBarChart(chart);
  const open: string[] = [];
  const rest = svg.replace(/<(\/?)([a-z]+)((?: [a-zA-Z][a-zA-Z0-9-]*="[^"<]*")*)(\/?)>/g, (_, end, tag, __, empty) => {
    if (end) expect(open.pop()).toBe(tag);
    else if (!empty) open.push(tag);
    return '';
  });
  expect(open).toEqual([]);
  expect(rest).not.toMatch(/[<>]|&(?!(amp|lt|gt|quot);)/);
  // biome-ignore lint/suspicious/noControlCharactersInRegex: XML has none of them
  expect(svg).not.toMatch(/[\u0000-\u0008]/);
  expect(svg).toContain('model &quot;a&quot; &amp; &lt;b&gt;');
});

test('bars are as high as their values, and everything is inside', () => {
  const svg = drawBarChart(chart);
  const heights = attributes(svg, 'rect', 'height').map(Number);
  expect(heights).toHaveLength(3);
  expect(heights[0]).toBeCloseTo(heights[2]! / 4, 0);
  expect(heights[1]).toBe(1); // so that nothing looks as if it were missing
  const [, width, height] = /viewBox="0 0 (\d+) (\d+)"/.exec(svg)!.map(Number);
  for (const x of attributes(svg, 'text', 'x')) expect(Number(x)).toBeLessThan(width!);
  for (const y of attributes(svg, 'text', 'y')) expect(Number(y)).toBeLessThan(height!);
  for (const value of ['10 t/s', '40 t/s', '7.35', 'first', 'third']) expect(svg).toContain(`>${value}<`);
});

test('what bars are compared with is an outline on the same scale, its label inside the picture', () => {
  const outlines = [{ value: 80, label: 'other 80' }, null, { value: 20, label: 'other 20' }];
  const svg = drawBarChart({ ...chart, panels: [{ ...chart.panels[0], outlines }] });
  const heights = attributes(svg, 'rect', 'height').map(Number);
  expect(heights).toHaveLength(5);
  const [first, itsOutline, , third, lowOutline] = heights;
  expect(itsOutline).toBeCloseTo(8 * first!, 0);
  expect(third! / lowOutline!).toBeCloseTo(2, 0);
  for (const label of ['other 80', 'other 20']) expect(svg).toContain(`>${label}<`);
  const texts = attributes(svg, 'text', 'y').map(Number);
  expect(texts.every((y) => y > 0)).toBe(true);
  // The highest outline's two labels and the panel's title are on lines of their own.
  const top = texts.filter((y) => y < Math.min(...attributes(svg, 'rect', 'y').map(Number)));
  const sorted = top.sort((a, b) => a - b);
  sorted.slice(1).forEach((y, i) => {
    expect(y - sorted[i]!).toBeGreaterThanOrEqual(13);
  });
});

test('small differences look small', () => {
  const panel = { ...chart.panels[1], values: [7, 7, 7.0007] };
  const heights = attributes(drawBarChart({ ...chart, panels: [panel] }), 'circle', 'cy').map(Number);
  expect(heights[0]).toBe(heights[1]);
  expect(heights[1]! - heights[2]!).toBeLessThan(1);
});
