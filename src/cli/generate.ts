import { Command, Option } from 'commander';
import { EngineError } from '../base/errors.js';
import { Engine } from '../library/engine.js';
import type { Completion, CompletionRequest } from '../serving/completer.js';
import { loadFlags, number, repeatable } from './flags.js';
import { note, Output } from './output.js';
import { readPrompt } from './prompt.js';

interface GenerateFlags {
  readonly model?: string;
  readonly backend?: 'auto';
  readonly threads?: number;
  readonly contextSize?: number;
  readonly kvDtype?: 'f32';
  readonly activations?: 'auto';
  readonly prompt?: string;
  readonly promptFile?: string;
  readonly maxTokens?: number;
  readonly temperature?: number;
  readonly topK?: number;
  readonly topP?: number;
  readonly minP?: number;
  readonly typicalP?: number;
  readonly repeatPenalty?: number;
  readonly presencePenalty?: number;
  readonly frequencyPenalty?: number;
  readonly logitBias?: Record<number, number>;
  readonly seed?: number;
  readonly stop?: readonly string[];
  readonly ignoreEos?: boolean;
  readonly logprobs?: number;
  readonly stats?: boolean;
  readonly json?: boolean;
}

export function generateCommand(): Command {
  const command = new Command('generate')
    .description('complete a prompt; text goes to stdout as it is generated')
    .argument('[prompt]', 'text to continue; `-` reads stdin');
  for (const flag of loadFlags()) command.addOption(flag);
  return command
    .option('-p, --prompt <text>', 'text to continue; `-` reads stdin')
    .option('--prompt-file <path>', 'file with the text to continue (one line break at its end is dropped)')
    .addOption(number('-n, --max-tokens <n>', 'most tokens to generate; default (or -1): until the context is full'))
    .addOption(number('--temperature <t>', '0 is greedy; default 0.8'))
    .addOption(number('--top-k <k>', 'keep the k most likely tokens; 0 is off; default 40'))
    .addOption(number('--top-p <p>', 'keep the likeliest tokens that hold this probability; 1 is off; default 0.95'))
    .addOption(number('--min-p <p>', 'keep tokens this fraction as likely as the likeliest; 0 is off; default 0.05'))
    .addOption(
      number('--typical-p <p>', 'keep the most typical tokens that hold this probability; 1 is off; default 1'),
    )
    .addOption(number('--repeat-penalty <x>', 'divides the logits of tokens seen before; 1 is off; default 1'))
    .addOption(number('--presence-penalty <x>', 'subtracted once from logits of generated tokens; default 0'))
    .addOption(number('--frequency-penalty <x>', 'subtracted per use from logits of generated tokens; default 0'))
    .addOption(
      new Option('--logit-bias <id:bias>', 'added to the logit of a token id; repeatable; -inf bans').argParser(
        parseBias,
      ),
    )
    .addOption(number('--seed <n>', 'same seed, same tokens; default (or -1): random'))
    .addOption(repeatable('--stop <text>', 'end the answer before this text; repeatable'))
    .option('--ignore-eos', 'go on after the end-of-text token')
    .addOption(number('--logprobs <n>', 'with --json: log-probabilities with n alternatives a token, at most 20'))
    .option('--stats', 'timings on stderr')
    .option('--json', 'print one JSON object instead of text')
    .action(generate);
}

async function generate(argument: string | undefined, flags: GenerateFlags): Promise<void> {
  const prompt = await readPrompt({ argument, prompt: flags.prompt, promptFile: flags.promptFile });
  const interrupt = new AbortController();
  const onInterrupt = () => (interrupt.signal.aborted ? process.exit(130) : interrupt.abort());
  process.on('SIGINT', onInterrupt);
  const output = new Output();
  const { signal } = interrupt;
  try {
    await using engine = await Engine.load({ ...flags, signal });
    if (engine.fallbackReason !== null) note(`engine: ${engine.fallbackReason}`);
    const request = requestOf(prompt, flags, signal);
    const completion = await engine.complete(request, async ({ text }) => {
      if (!flags.json) await output.write(text);
      if (output.closed) interrupt.abort();
    });
    if (flags.json) await output.json(report(engine, prompt, completion));
    else if (output.stream.isTTY) await output.write('\n');
    if (flags.stats) note(statistics(engine, completion));
    if (completion.finishReason === 'abort' && !output.closed) process.exitCode = 130;
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}

function requestOf(prompt: string, flags: GenerateFlags, signal: AbortSignal): CompletionRequest {
  const { repeatPenalty, maxTokens, seed, ...same } = flags;
  return {
    ...same,
    prompt,
    signal,
    repetitionPenalty: repeatPenalty,
    maxTokens: maxTokens === -1 ? undefined : maxTokens,
    seed: seed === -1 ? undefined : seed,
  };
}

/** The object of --json; its names are a promise (contracts.md). */
function report(engine: Engine, prompt: string, completion: Completion) {
  const { usage, timings, logprobs } = completion;
  return {
    model: engine.model.name,
    backend: engine.backend,
    prompt,
    text: completion.text,
    prompt_token_ids: completion.promptTokenIds,
    token_ids: completion.tokenIds,
    finish_reason: completion.finishReason,
    usage: {
      prompt_tokens: usage.promptTokens,
      completion_tokens: usage.completionTokens,
      cached_tokens: usage.cachedTokens,
    },
    timings: {
      load_ms: engine.loadMs,
      ttft_ms: timings.ttftMs,
      prefill_tokens_per_second: timings.prefillTokensPerSecond,
      decode_tokens_per_second: timings.decodeTokensPerSecond,
      total_ms: timings.totalMs,
    },
    ...(logprobs && { logprobs }),
  };
}

function statistics(engine: Engine, { usage, timings, finishReason }: Completion): string {
  return [
    `${engine.model.name} on ${engine.backend}, loaded in ${engine.loadMs.toFixed(0)} ms`,
    `prompt  ${usage.promptTokens} tokens, ${timings.prefillTokensPerSecond.toFixed(1)} tokens/s, first token after ${timings.ttftMs.toFixed(1)} ms`,
    `answer  ${usage.completionTokens} tokens, ${timings.decodeTokensPerSecond.toFixed(1)} tokens/s, finish reason ${finishReason}`,
  ].join('\n');
}

function parseBias(value: string, before: Record<number, number> | undefined): Record<number, number> {
  const [, id, bias] = /^(\d+):(-inf|-?[\d.]+)$/i.exec(value) ?? [];
  const number = bias?.toLowerCase() === '-inf' ? Number.NEGATIVE_INFINITY : Number(bias); // NaN if nothing matched
  if (id !== undefined && !Number.isNaN(number)) return { ...before, [id]: number };
  throw new EngineError('OPTION_INVALID', {
    option: '--logit-bias',
    value,
    expected: 'id:bias, such as 42:-5 or 42:-inf',
  });
}
