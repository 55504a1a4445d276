import type { FastifyReply } from 'fastify';
import { EngineError } from '../base/errors.js';
import type { Completer, CompletionEvent, CompletionRequest, Outcome, Usage } from '../serving/completer.js';
import { Answer, type AnswerStyle } from './answer.js';
import { apiError } from './api-error.js';
import type { ServerLimits } from './limits.js';
import type { RequestScope } from './request-scope.js';
import { EventStream } from './sse.js';

/** Prompts of one HTTP request with n answers each; choice p · n + i is answer i to prompt p. */
export interface Job {
  readonly requests: readonly CompletionRequest[];
  readonly n: number;
  readonly style: AnswerStyle;
}

/** Sees every event; waiting in it holds that prompt's answers back. */
type OnEvent = (choice: number, event: CompletionEvent) => void | Promise<void>;

/** Runs all prompts at once. The first that fails ends the others. Resolves to what they took together. */
async function run(model: Completer, job: Job, scope: RequestScope, onEvent: OnEvent): Promise<Usage> {
  const outcomes: (Outcome | undefined)[] = [];
  const answer = async (request: CompletionRequest, prompt: number) => {
    for await (const event of model.generate({ ...request, tenant: scope.tenant, signal: scope.signal })) {
      if (event.outcome?.finishReason === 'abort') {
        throw new EngineError('INTERNAL', { problem: 'an answer was aborted' }); // replaced by our reason, if it was us
      }
      const choice = prompt * job.n + event.index;
      scope.note(choice, event);
      outcomes[choice] ??= event.outcome;
      await onEvent(choice, event);
    }
  };
  const answers = job.requests.map(answer);
  try {
    await Promise.all(answers);
  } catch (error) {
    scope.abort(error);
  }
  await Promise.allSettled(answers);
  scope.signal.throwIfAborted();
  const usage = usageOf(outcomes, job);
  scope.promptTokens = usage.promptTokens;
  return usage;
}

/** A prompt is counted once, however many answers it has. */
function usageOf(outcomes: readonly (Outcome | undefined)[], job: Job): Usage {
  const total = { promptTokens: 0, completionTokens: 0, cachedTokens: 0 };
  for (const choice of choicesOf(job)) {
    const usage = outcomes[choice]?.usage;
    if (usage === undefined) throw new EngineError('INTERNAL', { problem: 'an answer ended without an outcome' });
    total.completionTokens += usage.completionTokens;
    if (choice % job.n !== 0) continue;
    total.promptTokens += usage.promptTokens;
    total.cachedTokens += usage.cachedTokens;
  }
  return total;
}

function choicesOf(job: Job): readonly number[] {
  return Array.from({ length: job.requests.length * job.n }, (_, choice) => choice);
}

/** The whole answer at once. */
export async function complete(model: Completer, job: Job, scope: RequestScope): Promise<object> {
  const answers = choicesOf(job).map(() => new Answer());
  const usage = await run(model, job, scope, (choice, event) => answers[choice]!.add(event));
  return job.style.whole(answers, usage);
}

/** What a stream needs of its server. */
export interface StreamContext {
  readonly limits: ServerLimits;
  readonly modelName: string;
  readonly includeUsage: boolean;
}

/** The answer as it is made. What fails once the stream is open is sent as its last event, and then thrown. */
export async function stream(
  model: Completer,
  job: Job,
  scope: RequestScope,
  reply: FastifyReply,
  { limits, modelName, includeUsage }: StreamContext,
): Promise<void> {
  let events: EventStream | null = null;
  const open = (): EventStream => {
    if (events !== null) return events;
    clearTimeout(timer);
    events = new EventStream(reply, limits, (reason) => scope.abort(reason));
    for (const choice of choicesOf(job)) events.send(job.style.opening(choice));
    return events;
  };
  const timer = setTimeout(open, limits.openAfterMs);
  try {
    const usage = await run(model, job, scope, (choice, event) => {
      const stream = open();
      stream.send(job.style.event(choice, event));
      return stream.ready();
    });
    if (includeUsage) open().send(job.style.usage(usage));
    open().send('data: [DONE]\n\n');
  } catch (error) {
    if (events === null) throw error;
    open().send(`data: ${JSON.stringify(apiError(error, modelName).body)}\n\n`);
    throw error;
  } finally {
    clearTimeout(timer);
    (events as EventStream | null)?.end();
  }
}
