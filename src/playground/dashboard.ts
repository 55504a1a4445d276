import { type Api, ApiError } from './api.js';
import { Chart } from './chart.js';
import { create } from './dom.js';
import { History, type Percentiles, type Reading } from './history.js';
import { parseMetrics } from './metrics.js';

/** Milliseconds between scrapes. */
const INTERVAL = 1000;

interface Card {
  readonly element: HTMLElement;
  draw(now: Reading, readings: readonly Reading[]): void;
}

/** The panel of live numbers; scrapes only while it can be seen. */
export class Dashboard {
  #history = new History();
  #timer: ReturnType<typeof setTimeout> | undefined;
  readonly #note = create('p', { className: 'note' }, 'Waiting for the first numbers…');
  readonly #cards: readonly Card[] = [
    throughput(),
    latency('Time to first token', (reading) => reading.ttft),
    latency('Inter-token latency', (reading) => reading.interToken),
    share('KV cache', (reading) => reading.kvUsage),
    share('Prefix hits', (reading) => reading.hitRate),
    queue(),
  ];

  constructor(
    readonly api: Api,
    readonly panel: HTMLElement,
  ) {
    const cards = create('div', { className: 'cards' }, ...this.#cards.map(({ element }) => element));
    panel.append(create('h2', {}, 'Live'), this.#note, cards);
    document.addEventListener('visibilitychange', () => this.refresh());
  }

  /** Begins or ends to scrape; call it when the panel was opened or closed, and when there is a new key. */
  refresh(): void {
    clearTimeout(this.#timer);
    if (!this.panel.hidden && !document.hidden) void this.#scrape();
  }

  async #scrape(): Promise<void> {
    try {
      const scrape = parseMetrics(await this.api.metrics());
      const now = this.#history.add(scrape, performance.now());
      for (const card of this.#cards) card.draw(now, this.#history.readings);
      this.#note.textContent = 'The last minute, second by second.';
    } catch (error) {
      if (error instanceof ApiError && error.status === 401) {
        this.#note.textContent = 'The numbers are behind the API key.';
        return; // refresh() goes on once there is one
      }
      this.#note.textContent = error instanceof ApiError ? error.message : 'The server does not answer.';
    }
    clearTimeout(this.#timer);
    if (!this.panel.hidden && !document.hidden) this.#timer = setTimeout(() => void this.#scrape(), INTERVAL);
  }
}

function card(title: string, body: Node[], chart: Chart): HTMLElement {
  return create('section', { className: 'card' }, create('h3', {}, title), ...body, chart.element);
}

function throughput(): Card {
  const rate = create('b', {}, '–');
  const prompt = create('span', { className: 'aside' });
  const chart = new Chart(1, 1);
  const figure = create('p', { className: 'figure' }, rate, create('span', { className: 'unit' }, 'tokens/s'), prompt);
  return {
    element: card('Throughput', [figure], chart),
    draw(now, readings) {
      rate.textContent = now.generated === null ? '–' : rounded(now.generated);
      prompt.textContent = now.prompted ? `+ ${rounded(now.prompted)} of prompts` : '';
      chart.draw([readings.map(({ generated }) => generated)]);
    },
  };
}

function latency(title: string, read: (reading: Reading) => Percentiles | null): Card {
  const names = ['p50', 'p95', 'p99'] as const;
  const values = names.map(() => create('dd', {}, '–'));
  const list = create('dl', { className: 'percentiles' });
  for (const [index, name] of names.entries())
    list.append(create('div', {}, create('dt', { className: `key-${index}` }, name), values[index]!));
  const chart = new Chart(2, 0.001);
  return {
    element: card(title, [list], chart),
    draw(now, readings) {
      const percentiles = read(now);
      for (const [index, name] of names.entries()) {
        values[index]!.textContent = percentiles === null ? '–' : duration(percentiles[name]);
      }
      const shown = readings.map(read);
      chart.draw([shown.map((p) => p?.p50 ?? null), shown.map((p) => p?.p95 ?? null)]);
    },
  };
}

function share(title: string, read: (reading: Reading) => number | null): Card {
  const value = create('b', {}, '–');
  const chart = new Chart(1, 1);
  const figure = create('p', { className: 'figure' }, value, create('span', { className: 'unit' }, '%'));
  const element = card(title, [figure], chart);
  element.classList.add('half');
  return {
    element,
    draw(now, readings) {
      const part = read(now);
      value.textContent = part === null ? '–' : rounded(part * 100);
      chart.draw([readings.map(read)]);
    },
  };
}

function queue(): Card {
  const running = create('b', {}, '–');
  const waiting = create('b', {}, '–');
  const chart = new Chart(2, 4);
  const unit = (name: string, series: number) => create('span', { className: `unit key-${series}` }, name);
  const figure = create('p', { className: 'figure' }, running, unit('running', 0), waiting, unit('waiting', 1));
  return {
    element: card('Requests', [figure], chart),
    draw(now, readings) {
      running.textContent = `${now.running}`;
      waiting.textContent = `${now.waiting}`;
      chart.draw([readings.map((r) => r.running), readings.map((r) => r.waiting)]);
    },
  };
}

function rounded(value: number): string {
  return value > 0 && value < 9.95 ? value.toFixed(1) : Math.round(value).toLocaleString('en');
}

/** Seconds, as people say them. */
function duration(seconds: number): string {
  const ms = seconds * 1000;
  if (ms < 9.95) return `${ms.toFixed(1)} ms`;
  return ms < 1000 ? `${Math.round(ms)} ms` : `${seconds.toFixed(2)} s`;
}
