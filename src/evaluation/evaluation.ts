import { setImmediate as nextTurn } from 'node:timers/promises';
import { EngineError, invariant } from '../base/errors.js';
import { problemOf } from './log-softmax.js';
import { digest, type Identity, type SavedEvaluation, unusable, windowsDone } from './saved-evaluation.js';
import { type EvaluatedModel, type EvaluationText, evaluationText } from './text.js';
import { type Window, type WindowOptions, WindowPlan } from './windows.js';

export interface EvaluationOptions extends WindowOptions {
  /** Tokens of the text to use; default all, at most 4,194,304. */
  readonly maxTokens?: number | undefined;
  /** Called after every window, and waited for. */
  readonly onWindow?: ((progress: EvaluationProgress) => void | Promise<void>) | undefined;
  /** Where to go on, from `save` of a progress. The results are those of a run without interruption, to the last bit. */
  readonly resume?: SavedEvaluation | undefined;
  /**
   * What else the results depend on, such as the load options and the dates of files; compared when resuming. The
   * names of the models, the text, window and stride are compared in any case.
   */
  readonly identity?: Identity | undefined;
  /** Ends the evaluation with ABORTED. */
  readonly signal?: AbortSignal | undefined;
}

export interface EvaluationProgress {
  readonly windows: number;
  readonly numWindows: number;
  /** Tokens scored so far, and in the end. */
  readonly tokens: number;
  readonly numTokens: number;
  /** Tokens scored per second of this run. */
  readonly tokensPerSecond: number;
  /** Perplexity or mean divergence (nats) so far. */
  readonly value: number;
  /** What `resume` takes. */
  save(): SavedEvaluation;
}

/** What an evaluation looked at, and how fast. */
export interface EvaluationRun {
  /** Tokens scored. */
  readonly tokens: number;
  /** Bytes of UTF-8 that these tokens stand for; null for token ids of a model without a tokenizer. */
  readonly bytes: number | null;
  readonly windows: number;
  /** Tokens. */
  readonly window: number;
  readonly stride: number;
  /** Tokens scored per second of this run; 0 if nothing was left to do. */
  readonly tokensPerSecond: number;
}

/** Adds up what the rows of logits say, one scored token after the other. */
export interface Scorer {
  /** Perplexity or mean divergence so far. */
  readonly value: number;
  /** One row of logits, [vocabSize], of every model; false if one of them is no distribution. */
  score(rows: readonly Float32Array[], target: number): boolean;
  save(): unknown;
}

/** How to make a scorer for a text of this many scored tokens. */
export interface ScorerFactory<S extends Scorer> {
  readonly kind: string;
  create(numTokens: number): S;
  /** Goes on where `saved` was saved, `numSaved` tokens being scored; null if it is not what `save` gives. */
  restore(numTokens: number, numSaved: number, saved: unknown): S | null;
}

/** Milliseconds of scoring between turns of the event loop. */
const MAX_TURN_MS = 8;

/**
 * Runs models over the windows of a text, one model after the other and one window at a time, so that logits take
 * window × vocabSize floats per model. Throws what logits() throws, TOKENIZER_MISSING, TOKEN_ID_INVALID, TEXT_TOO_SHORT,
 * OPTION_INVALID, LOGITS_INVALID, SAVED_EVALUATION_UNUSABLE, ABORTED.
 */
export async function evaluate<S extends Scorer>(
  models: readonly [EvaluatedModel, ...EvaluatedModel[]],
  input: string | ArrayLike<number>,
  options: EvaluationOptions,
  factory: ScorerFactory<S>,
): Promise<{ scorer: S; run: EvaluationRun }> {
  const { signal, resume, onWindow } = options;
  const text = evaluationText(models[0], input, options.maxTokens);
  const contextSize = Math.min(...models.map((each) => each.contextSize));
  const plan = new WindowPlan(text.ids.length, text.bosId !== null, contextSize, options);
  const { numWindows, window, stride } = plan;
  const numTokens = plan.numScored();
  const identity: Identity = {
    evaluation: factory.kind,
    model: models[0].model.name,
    ...(models[1] && { reference: models[1].model.name }),
    text: digest(text.ids),
    'beginning of text': text.bosId ?? 'none',
    window,
    stride,
    ...options.identity,
  };
  const done = resume === undefined ? 0 : windowsDone(resume, identity, numWindows);
  const numDone = plan.numScored(done);
  const scorer = resume ? factory.restore(numTokens, numDone, resume.scores) : factory.create(numTokens);
  if (scorer === null) throw unusable('its scores are damaged');

  const start = performance.now();
  const speed = (tokens: number) => ((tokens - numDone) * 1000) / Math.max(1e-3, performance.now() - start);
  for (let index = done; index < numWindows; index++) {
    await scoreWindow(models, text, plan.at(index), index, scorer, signal);
    const tokens = plan.numScored(index + 1);
    await onWindow?.({
      windows: index + 1,
      numWindows,
      tokens,
      numTokens,
      tokensPerSecond: speed(tokens),
      value: scorer.value,
      save: () => ({ version: 1, identity, windows: index + 1, scores: scorer.save() }),
    });
  }
  const bytes = text.bytesFrom(plan.at(0).scoredFrom);
  return {
    scorer,
    run: { tokens: numTokens, bytes, windows: numWindows, window, stride, tokensPerSecond: speed(numTokens) },
  };
}

async function scoreWindow(
  models: readonly EvaluatedModel[],
  text: EvaluationText,
  window: Window,
  index: number,
  scorer: Scorer,
  signal: AbortSignal | undefined,
): Promise<void> {
  const prefix = text.bosId === null ? [] : [text.bosId];
  const ids = [...prefix, ...text.ids.subarray(window.start, window.end - 1)]; // the last token is only predicted
  const logits: Float32Array[] = []; // of every model, [ids.length, vocabSize]
  for (const model of models) logits.push(await model.logits(ids, signal && { signal }));
  const vocabSize = logits[0]!.length / ids.length;
  let turn = performance.now();
  for (let token = window.scoredFrom; token < window.end; token++) {
    const position = token - window.start + prefix.length - 1; // of the token before, whose logits predict this one
    const rows = logits.map((all) => all.subarray(position * vocabSize, (position + 1) * vocabSize));
    if (!scorer.score(rows, text.ids[token]!)) throw invalidLogits(models, rows, index, position);
    if (performance.now() - turn < MAX_TURN_MS) continue;
    await nextTurn();
    if (signal?.aborted) throw new EngineError('ABORTED', {});
    turn = performance.now();
  }
}

function invalidLogits(
  models: readonly EvaluatedModel[],
  rows: readonly Float32Array[],
  window: number,
  position: number,
): EngineError {
  const problems = rows.map(problemOf);
  const at = problems.findIndex((problem) => problem !== null);
  invariant(at >= 0, 'a row of logits was refused that is a distribution');
  return new EngineError('LOGITS_INVALID', {
    model: models[at]!.model.name,
    window,
    position,
    problem: problems[at]!,
  });
}
