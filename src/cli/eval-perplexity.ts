import { Command } from 'commander';
import { evaluatePerplexity, type Perplexity } from '../evaluation/perplexity.js';
import { Engine } from '../library/engine.js';
import type { LoadOptions } from '../library/load-options.js';
import { type EvaluationFlags, evaluationFlags, readInput } from './eval-input.js';
import { modelIdentity } from './eval-resume.js';
import { percent, runEvaluation, withError } from './eval-run.js';
import { loadFlags } from './flags.js';
import { formatTable, note } from './output.js';

interface PerplexityFlags extends LoadOptions, EvaluationFlags {}

interface Report extends Perplexity {
  readonly model: string;
  readonly backend: string;
}

export function perplexityCommand(): Command {
  const command = new Command('perplexity').description('perplexity and bits per byte of a model on a text');
  for (const flag of [...loadFlags(), ...evaluationFlags()]) command.addOption(flag);
  return command.action(perplexity);
}

async function perplexity(flags: PerplexityFlags): Promise<void> {
  const input = await readInput(flags);
  await runEvaluation<Report>(
    flags,
    async (options) => {
      await using engine = await Engine.load({ ...flags, signal: options.signal });
      if (engine.fallbackReason !== null) note(`engine: ${engine.fallbackReason}`);
      const identity = await modelIdentity(engine, flags);
      const result = await evaluatePerplexity(engine, input, { ...options, identity });
      return { model: engine.model.name, backend: engine.backend, ...result };
    },
    { measure: 'perplexity', json, text },
  );
}

/** The object of --json; its names are a promise (contracts.md). Infinity is null in JSON. */
function json(report: Report) {
  return {
    model: report.model,
    backend: report.backend,
    perplexity: report.perplexity,
    perplexity_error: report.perplexityError,
    nll: report.nll,
    nll_error: report.nllError,
    bits_per_byte: report.bitsPerByte,
    top1_accuracy: report.top1Accuracy,
    impossible_tokens: report.impossibleTokens,
    tokens: report.tokens,
    bytes: report.bytes,
    windows: report.windows,
    window: report.window,
    stride: report.stride,
    tokens_per_second: report.tokensPerSecond,
  };
}

function text(report: Report): string {
  return formatTable([
    ['model', `${report.model} on ${report.backend}`],
    ['perplexity', withError(report.perplexity, report.perplexityError)],
    ['nll', `${withError(report.nll, report.nllError)} nats per token`],
    ['bits per byte', report.bitsPerByte === null ? 'unknown: no tokenizer' : report.bitsPerByte.toPrecision(5)],
    ['top-1 accuracy', percent(report.top1Accuracy)],
    ...(report.impossibleTokens > 0
      ? [['impossible', `${report.impossibleTokens} tokens of probability 0`] as const]
      : []),
    ['scored', `${report.tokens} tokens in ${report.windows} windows of ${report.window}, stride ${report.stride}`],
    ['speed', `${report.tokensPerSecond.toFixed(1)} tokens/s`],
  ]);
}
