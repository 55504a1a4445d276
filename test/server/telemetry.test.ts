import {
  type Context,
  context,
  propagation,
  ROOT_CONTEXT,
  SpanKind,
  SpanStatusCode,
  type TextMapPropagator,
  TraceFlags,
  trace,
} from '@opentelemetry/api';
import { BasicTracerProvider, InMemorySpanExporter, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { EngineError } from '../../src/base/errors.js';
import { openTelemetry } from '../../src/server/telemetry.js';
import { outcome, requestStart } from './requests.js';

const traceId = '0af7651916cd43dd8448eb211c80319c';
const spanId = 'b7ad6b7169203331';

/** Reads the header as W3C's trace context has it. */
const propagator: TextMapPropagator = {
  inject: () => undefined,
  extract: (parent, carrier, getter) => {
    const [, traceId, spanId] = /^00-(\w{32})-(\w{16})-01$/.exec(String(getter.get(carrier, 'traceparent'))) ?? [];
    if (traceId === undefined || spanId === undefined) return parent;
    return trace.setSpanContext(parent, { traceId, spanId, traceFlags: TraceFlags.SAMPLED, isRemote: true });
  },
  fields: () => ['traceparent'],
};

let active: Context = ROOT_CONTEXT;
const exporter = new InMemorySpanExporter();

beforeEach(() => {
  active = ROOT_CONTEXT;
  trace.setGlobalTracerProvider(new BasicTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }));
  propagation.setGlobalPropagator(propagator);
  context.setGlobalContextManager({
    active: () => active,
    with: (_, action, self, ...values) => action.call(self as ThisParameterType<typeof action>, ...values),
    bind: (_, target) => target,
    enable() {
      return this;
    },
    disable() {
      return this;
    },
  });
});

afterEach(() => {
  trace.disable();
  propagation.disable();
  context.disable();
  exporter.reset();
});

const onlySpan = () => {
  const spans = exporter.getFinishedSpans();
  expect(spans).toHaveLength(1);
  return spans[0]!;
};

describe('telemetry', () => {
  it('describes a chat with the names of the GenAI conventions', async () => {
    const telemetry = (await openTelemetry())!;
    const observation = telemetry.begin(
      requestStart({ parameters: { temperature: 0.5, max_tokens: 7, n: 2, logprobs: 3, seed: undefined } }),
    );
    observation.tokens(0, 1);
    const outcomes = [outcome(), outcome({ finishReason: 'length' })];
    observation.end({ status: 200, promptTokens: 10, outcomes });
    const span = onlySpan();
    expect(span.name).toBe('chat tiny');
    expect(span.kind).toBe(SpanKind.SERVER);
    expect(span.status.code).toBe(SpanStatusCode.UNSET);
    const { 'gen_ai.response.time_to_first_chunk': firstChunk, ...attributes } = span.attributes;
    expect(firstChunk).toBeGreaterThanOrEqual(0);
    expect(attributes).toEqual({
      'gen_ai.operation.name': 'chat',
      'gen_ai.provider.name': 'engine-ts',
      'gen_ai.request.model': 'tiny',
      'gen_ai.request.stream': true,
      'gen_ai.request.temperature': 0.5,
      'gen_ai.request.max_tokens': 7,
      'gen_ai.request.choice.count': 2,
      'gen_ai.response.id': 'req-1',
      'gen_ai.response.model': 'tiny',
      'gen_ai.response.finish_reasons': ['stop', 'length'],
      'gen_ai.usage.input_tokens': 10,
      'gen_ai.usage.output_tokens': 8,
      'gen_ai.usage.cache_read.input_tokens': 6,
      'http.response.status_code': 200,
      'openinference.span.kind': 'LLM',
    });
  });

  it('continues the trace of the headers', async () => {
    const telemetry = (await openTelemetry())!;
    const traceHeaders = { traceparent: `00-${traceId}-${spanId}-01` };
    telemetry.begin(requestStart({ traceHeaders })).end({ status: 200, promptTokens: 1, outcomes: [] });
    const span = onlySpan();
    expect(span.spanContext().traceId).toBe(traceId);
    expect(span.parentSpanContext?.spanId).toBe(spanId);
    expect(span.kind).toBe(SpanKind.SERVER);
  });

  it("is internal inside a span of the process's own HTTP server", async () => {
    const telemetry = (await openTelemetry())!;
    const outer = trace.getTracer('http').startSpan('POST');
    active = trace.setSpan(ROOT_CONTEXT, outer);
    const traceHeaders = { traceparent: `00-${traceId}-${spanId}-01` };
    telemetry.begin(requestStart({ traceHeaders })).end({ status: 200, promptTokens: 1, outcomes: [] });
    const span = onlySpan();
    expect(span.kind).toBe(SpanKind.INTERNAL);
    expect(span.parentSpanContext?.spanId).toBe(outer.spanContext().spanId);
  });

  it('names what went wrong, but never quotes it', async () => {
    const telemetry = (await openTelemetry())!;
    const secret = 'my prompt';
    const error = new EngineError('OPTION_INVALID', { option: 'prompt', value: secret, expected: 'something else' });
    telemetry
      .begin(requestStart({ operation: 'embeddings' }))
      .end({ status: 400, promptTokens: 0, outcomes: [], error });
    telemetry.begin(requestStart()).end({ status: 500, promptTokens: 0, outcomes: [], error: new TypeError(secret) });
    const [refused, failed] = exporter.getFinishedSpans();
    expect(refused!.attributes['error.type']).toBe('OPTION_INVALID');
    expect(refused!.attributes['openinference.span.kind']).toBe('EMBEDDING');
    expect(refused!.status.code).toBe(SpanStatusCode.UNSET);
    expect(failed!.attributes['error.type']).toBe('TypeError');
    expect(failed!.status.code).toBe(SpanStatusCode.ERROR);
    const told = [refused!, failed!].map(({ name, attributes, events, status }) => ({
      name,
      attributes,
      events,
      status,
    }));
    expect(JSON.stringify(told)).not.toContain(secret);
  });

  it('does nothing where no SDK records', async () => {
    trace.disable();
    const observation = (await openTelemetry())!.begin(requestStart());
    observation.tokens(0, 1);
    observation.end({ status: 200, promptTokens: 1, outcomes: [outcome()] });
    expect(exporter.getFinishedSpans()).toEqual([]);
  });

  it('makes no span of what asks nothing of the model', async () => {
    const telemetry = (await openTelemetry())!;
    for (const operation of ['tokenize', 'detokenize', 'apply_template'] as const) {
      telemetry.begin(requestStart({ operation })).end({ status: 200, promptTokens: 0, outcomes: [] });
    }
    expect(exporter.getFinishedSpans()).toEqual([]);
  });
});
