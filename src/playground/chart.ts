const SVG = 'http://www.w3.org/2000/svg';
const WIDTH = 60;
const HEIGHT = 36;

/** A line per series over the last WIDTH readings, newest at the right, from 0 to the largest value of all. */
export class Chart {
  readonly element = document.createElementNS(SVG, 'svg');
  readonly #lines: { readonly area: SVGPathElement; readonly line: SVGPathElement }[] = [];

  /** `least` is the smallest value that the top may stand for, so that noise does not look like a mountain. */
  constructor(
    numSeries: number,
    readonly least: number,
  ) {
    this.element.setAttribute('class', 'chart');
    this.element.setAttribute('viewBox', `0 0 ${WIDTH} ${HEIGHT}`);
    this.element.setAttribute('preserveAspectRatio', 'none');
    this.element.setAttribute('aria-hidden', 'true'); // the numbers beside it say it
    for (let series = 0; series < numSeries; series++) {
      const [area, line] = ['area', 'line'].map((name) => {
        const path = document.createElementNS(SVG, 'path');
        path.setAttribute('class', `${name} series-${series}`);
        this.element.append(path);
        return path;
      });
      this.#lines.push({ area: area!, line: line! });
    }
  }

  draw(series: readonly (readonly (number | null)[])[]): void {
    const top = Math.max(this.least, ...series.flat().map((value) => value ?? 0));
    for (const [index, values] of series.entries()) {
      const points = values.slice(-WIDTH - 1).map((value, at, shown) => {
        const x = WIDTH - (shown.length - 1 - at);
        return value === null ? null : { x, y: HEIGHT - 1.5 - (value / top) * (HEIGHT - 4) };
      });
      const known = points.filter((point) => point !== null);
      const path = known.map(({ x, y }, at) => `${at === 0 ? 'M' : 'L'}${x} ${y.toFixed(2)}`).join('');
      const [first, last] = [known[0], known.at(-1)];
      this.#lines[index]!.line.setAttribute('d', path);
      this.#lines[index]!.area.setAttribute(
        'd',
        first && last ? `${path}L${last.x} ${HEIGHT}L${first.x} ${HEIGHT}Z` : '',
      );
    }
  }
}
