import type { Attributes, Span, SpanKind } from '@opentelemetry/api';
import { EngineError } from '../base/errors.js';
import {
  modelOperations,
  type RequestEnd,
  type RequestObservation,
  type RequestObserver,
  type RequestStart,
} from './observer.js';
import { requestTotals } from './request-totals.js';

type OpenTelemetry = typeof import('@opentelemetry/api');

/** Request parameters that OpenTelemetry's GenAI conventions have a name for. */
const parameterNames: Readonly<Record<string, string>> = {
  max_tokens: 'gen_ai.request.max_tokens',
  max_completion_tokens: 'gen_ai.request.max_tokens',
  temperature: 'gen_ai.request.temperature',
  top_p: 'gen_ai.request.top_p',
  top_k: 'gen_ai.request.top_k',
  frequency_penalty: 'gen_ai.request.frequency_penalty',
  presence_penalty: 'gen_ai.request.presence_penalty',
  seed: 'gen_ai.request.seed',
  n: 'gen_ai.request.choice.count',
};

/** Makes spans if @opentelemetry/api is installed, which is optional; null if it is not. */
export async function openTelemetry(): Promise<RequestObserver | null> {
  try {
    return new Telemetry(await import('@opentelemetry/api'));
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? error.code : undefined;
    if (code === 'ERR_MODULE_NOT_FOUND' || code === 'MODULE_NOT_FOUND') return null;
    throw error;
  }
}

const nothing: RequestObservation = { tokens: () => undefined, end: () => undefined };

/**
 * One span per request, with the names of the GenAI conventions (open-telemetry/semantic-conventions-genai). Never a prompt
 * or an answer, nor the message of an error, which may quote them. Without an SDK that records, nothing is done.
 */
export class Telemetry implements RequestObserver {
  constructor(private readonly api: OpenTelemetry) {}

  begin(start: RequestStart): RequestObservation {
    // The conventions have no name for what asks nothing of the model.
    if (!modelOperations.some((operation) => operation === start.operation)) return nothing;
    const { context, propagation, trace, SpanKind } = this.api;
    const active = context.active();
    // A span of this process's HTTP server, if there is one, has read the headers already.
    const isNested = trace.getSpan(active) !== undefined;
    const parent = isNested ? active : propagation.extract(active, start.traceHeaders ?? {});
    // Our side of the call; inside a span of the HTTP server it is work within this process.
    const kind = isNested ? SpanKind.INTERNAL : SpanKind.SERVER;
    const span = this.#start(start, kind, parent);
    if (!span.isRecording()) return nothing;
    const begun = performance.now();
    let firstChunk: number | undefined; // seconds
    return {
      tokens: () => {
        firstChunk ??= (performance.now() - begun) / 1000;
      },
      end: (end) => {
        if (start.stream && firstChunk !== undefined)
          span.setAttribute('gen_ai.response.time_to_first_chunk', firstChunk);
        this.#end(span, start, end);
      },
    };
  }

  #start(start: RequestStart, kind: SpanKind, parent: Parameters<OpenTelemetry['propagation']['extract']>[0]): Span {
    const { operation, model, parameters } = start;
    const attributes: Attributes = {
      'gen_ai.operation.name': operation,
      'gen_ai.provider.name': 'engine-ts',
      'gen_ai.request.model': model,
      'openinference.span.kind': operation === 'embeddings' ? 'EMBEDDING' : 'LLM',
      ...(operation !== 'embeddings' && { 'gen_ai.request.stream': start.stream }),
    };
    for (const [name, value] of Object.entries(parameters)) {
      const attribute = parameterNames[name];
      if (attribute === undefined || value === undefined) continue;
      if (name !== 'n' || value !== 1) attributes[attribute] = value; // one answer is not worth an attribute, they say
    }
    return this.api.trace.getTracer('engine-ts').startSpan(`${operation} ${model}`, { kind, attributes }, parent);
  }

  #end(span: Span, start: RequestStart, end: RequestEnd): void {
    const { status, outcomes, promptTokens, error } = end;
    span.setAttributes({
      'gen_ai.response.id': start.requestId,
      'gen_ai.response.model': start.model,
      'gen_ai.usage.input_tokens': promptTokens,
      'http.response.status_code': status,
    });
    if (outcomes.length > 0) {
      const { completionTokens, cachedTokens } = requestTotals(start, end);
      span.setAttributes({
        'gen_ai.response.finish_reasons': outcomes.map(({ finishReason }) => finishReason),
        'gen_ai.usage.output_tokens': completionTokens,
        'gen_ai.usage.cache_read.input_tokens': cachedTokens,
      });
    }
    if (error !== undefined || status >= 400) {
      span.setAttribute('error.type', errorType(status, error));
      // As of an HTTP server's spans: what the client did wrong is no error of this side.
      if (status >= 500) span.setStatus({ code: this.api.SpanStatusCode.ERROR });
    }
    span.end();
  }
}

/** The code of our own errors, the class of others. */
function errorType(status: number, error: unknown): string {
  if (error instanceof EngineError) return error.code;
  return error instanceof Error ? error.name : String(status);
}
