import { describe, expect, it } from 'vitest';
import { Aligner } from '../../src/playground/align.js';
import { readChunk, type Token } from '../../src/playground/answer.js';
import { History } from '../../src/playground/history.js';
import { parseMetrics, quantile, since } from '../../src/playground/metrics.js';
import { eventData } from '../../src/playground/stream.js';

/** A body that arrives in these pieces. */
function body(...pieces: readonly (string | Uint8Array)[]): ReadableStream<Uint8Array> {
  return new ReadableStream({
    start(controller) {
      for (const piece of pieces) {
        controller.enqueue(typeof piece === 'string' ? new TextEncoder().encode(piece) : piece);
      }
      controller.close();
    },
  });
}

async function eventsOf(...pieces: readonly (string | Uint8Array)[]): Promise<string[]> {
  const events: string[] = [];
  for await (const data of eventData(body(...pieces))) events.push(data);
  return events;
}

describe('server-sent events', () => {
  const text = ': ping\r\ndata: one\r\n\r\nevent: x\ndata: two\ndata:  three\n\ndata\r\rdata: \u{1f98a} é\n\nid: 4\n\n';
  const events = ['one', 'two\n three', '', '\u{1f98a} é'];

  it('are read whatever ends their lines', async () => expect(await eventsOf(text)).toEqual(events));

  it('are read wherever the network cuts them, also within a character', async () => {
    const bytes = new TextEncoder().encode(text);
    for (let cut = 0; cut <= bytes.length; cut++) {
      expect(await eventsOf(bytes.subarray(0, cut), bytes.subarray(cut)), `cut at ${cut}`).toEqual(events);
    }
    expect(await eventsOf(...[...bytes].map((byte) => Uint8Array.of(byte)))).toEqual(events);
  });

  it('that were never ended are dropped', async () => expect(await eventsOf('data: a\n\ndata: b\n')).toEqual(['a']));

  it('that never end are refused', async () => {
    await expect(eventsOf(`data: ${'x'.repeat(600_000)}\n`, `data: ${'x'.repeat(600_000)}\n`)).rejects.toThrow(
      RangeError,
    );
    await expect(eventsOf('x'.repeat(1_100_000))).rejects.toThrow(RangeError);
  });

  it('cancel the body when their reader stops', async () => {
    let cancelled = false;
    const endless = new ReadableStream<Uint8Array>({
      pull: (controller) => controller.enqueue(new TextEncoder().encode('data: more\n\n')),
      cancel: () => {
        cancelled = true;
      },
    });
    for await (const data of eventData(endless)) if (data === 'more') break;
    expect(cancelled).toBe(true);
  });
});

describe('a chunk', () => {
  it('of a chat has text, tokens and how it ended', () => {
    const logprob = { token: 'Hi', logprob: -0.5, bytes: [72, 105], top_logprobs: [{ token: 'Hi', logprob: -0.5 }] };
    const choice = { delta: { content: 'Hi' }, logprobs: { content: [logprob] }, finish_reason: 'length' };
    expect(readChunk(JSON.stringify({ choices: [choice] }))).toEqual({
      text: 'Hi',
      tokens: [{ text: 'Hi', logprob: -0.5, bytes: [72, 105], top: [{ text: 'Hi', logprob: -0.5 }] }],
      finishReason: 'length',
      usage: null,
    });
  });

  it('of a completion has its alternatives sorted', () => {
    const logprobs = { tokens: ['a'], token_logprobs: [null], top_logprobs: [{ b: -3, a: -0.1 }] };
    expect(readChunk(JSON.stringify({ choices: [{ text: 'a', logprobs }] })).tokens).toEqual([
      {
        text: 'a',
        logprob: 0,
        bytes: null,
        top: [
          { text: 'a', logprob: -0.1 },
          { text: 'b', logprob: -3 },
        ],
      },
    ]);
  });

  it('may be nothing but usage, a role or an error', () => {
    const usage = { prompt_tokens: 3, completion_tokens: 2, prompt_tokens_details: { cached_tokens: 1 } };
    expect(readChunk(JSON.stringify({ choices: [], usage })).usage).toEqual({ prompt: 3, completion: 2, cached: 1 });
    expect(readChunk('{"choices":[{"delta":{"role":"assistant"},"logprobs":null}]}').text).toBe('');
    expect(() => readChunk('{"error":{"message":"no memory"}}')).toThrow('no memory');
  });
});

describe('text and tokens', () => {
  const token = (text: string, bytes: number[] | null = [...Buffer.from(text)]): Token => {
    return { text, bytes, logprob: -1, top: [] };
  };
  const shown = (aligner: Aligner, text: string, ...tokens: Token[]) =>
    aligner.push(text, tokens).map((piece) => [piece.text, piece.tokens.length]);

  it('that come together are matched one by one', () => {
    expect(shown(new Aligner(), 'Hello, you', token('Hello'), token(','), token(' you'))).toEqual([
      ['Hello', 1],
      [',', 1],
      [' you', 1],
    ]);
  });

  it('are matched when a character takes several tokens', () => {
    const aligner = new Aligner();
    expect(shown(aligner, '', token('\ufffd', [0xf0, 0x9f]))).toEqual([]);
    expect(shown(aligner, '\u{1f98a}!', token('\ufffd', [0xa6, 0x8a]), token('!'))).toEqual([
      ['\u{1f98a}', 2],
      ['!', 1],
    ]);
  });

  it('are matched when text is held back for a stop string', () => {
    const aligner = new Aligner();
    expect(shown(aligner, 'a', token('a'), token(' EN'))).toEqual([['a', 1]]);
    expect(shown(aligner, ' E', token('x'))).toEqual([]);
    expect(shown(aligner, 'Nx')).toEqual([
      [' EN', 1],
      ['x', 1],
    ]);
    expect(aligner.flush()).toBeNull();
  });

  it('are matched where the decoder leaves out the first space, and without bytes', () => {
    expect(shown(new Aligner(), 'Once upon', token(' Once', null), token(' upon', null))).toEqual([
      ['Once', 1],
      [' upon', 1],
    ]);
  });

  it('that do not belong together lose no text', () => {
    const aligner = new Aligner();
    expect(shown(aligner, 'abc', token('x'), token('y'))).toEqual([]);
    expect(aligner.flush()).toMatchObject({ text: 'abc', tokens: [{ text: 'x' }, { text: 'y' }] });
    expect(shown(aligner, 'd')).toEqual([['d', 0]]);
  });
});

describe('metrics', () => {
  const text = [
    '# HELP a_total what it counts',
    'a_total{model_name="x}y",le="3"} 2 1700000000000',
    'a_total{model_name="z"} 3.5e0',
    'not a sample',
    't_seconds_bucket{le="0.1",model_name="x"} 2',
    't_seconds_bucket{model_name="x",le="1"} 6',
    't_seconds_bucket{model_name="x",le="+Inf"} 8',
    't_seconds_bucket{model_name="z",le="1"} 2',
    't_seconds_bucket{model_name="z",le="+Inf"} 2',
    't_seconds_count{model_name="x"} 8',
  ].join('\n');

  it('are summed over their labels', () => {
    const { values, histograms } = parseMetrics(text);
    expect(values.get('a_total')).toBe(5.5);
    expect(histograms.get('t_seconds')).toEqual([
      [0.1, 2],
      [1, 8],
      [Number.POSITIVE_INFINITY, 10],
    ]);
  });

  it('give quantiles as Prometheus interpolates them', () => {
    const histogram = parseMetrics(text).histograms.get('t_seconds')!;
    expect(quantile(histogram, 0.1)).toBeCloseTo(0.05);
    expect(quantile(histogram, 0.5)).toBeCloseTo(0.1 + (0.9 * 3) / 6);
    expect(quantile(histogram, 0.99)).toBe(1); // beyond the last finite bound
    expect(quantile(since(histogram, histogram), 0.5)).toBeNull();
  });

  const scrape = (generated: number, fast: number, slow: number, queries = 0, hits = 0) =>
    parseMetrics(
      [
        `vllm:generation_tokens_total{model_name="m"} ${generated}`,
        `vllm:prefix_cache_queries_total{model_name="m"} ${queries}`,
        `vllm:prefix_cache_hits_total{model_name="m"} ${hits}`,
        `vllm:time_to_first_token_seconds_bucket{model_name="m",le="0.1"} ${fast}`,
        `vllm:time_to_first_token_seconds_bucket{model_name="m",le="+Inf"} ${fast + slow}`,
      ].join('\n'),
    );

  it('become rates between scrapes, and percentiles of what is new', () => {
    const history = new History();
    expect(history.add(scrape(1000, 100, 0, 50, 0), 0)).toMatchObject({ generated: null, hitRate: 0 });
    const reading = history.add(scrape(1030, 102, 0, 150, 75), 500);
    expect(reading).toMatchObject({ generated: 60, hitRate: 0.75, interToken: null });
    expect(reading.ttft).toMatchObject({ count: 2, p50: 0.05 });
    // When nothing happened for a minute, what was seen before it is told.
    expect(history.add(scrape(1030, 102, 0, 150, 75), 70_000).ttft?.count).toBe(102);
  });

  it('start again when the server does', () => {
    const history = new History();
    history.add(scrape(1000, 100, 0), 0);
    expect(history.add(scrape(10, 1, 0), 1000)).toMatchObject({ generated: null, ttft: { count: 1 } });
  });

  it('are kept for a minute', () => {
    const history = new History();
    for (let second = 0; second < 200; second++) history.add(scrape(second, 0, 0), second * 1000);
    expect(history.readings).toHaveLength(61);
  });
});
