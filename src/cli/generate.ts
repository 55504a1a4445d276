import { Command } from 'commander';
import { EngineError } from '../base/errors.js';
import { Engine } from '../library/engine.js';
import type { LoadOptions } from '../library/load-options.js';
import type { Completion, CompletionRequest } from '../serving/completer.js';
import {
  type ChatFlags,
  chatFlags,
  loadFlags,
  maxStepsFlag,
  number,
  promptCacheFlag,
  type SamplingFlags,
  samplingFlags,
  samplingRequest,
} from './flags.js';
import { note, Output, statistics } from './output.js';
import { readPrompt } from './prompt.js';

interface GenerateFlags extends LoadOptions, SamplingFlags, Omit<ChatFlags, 'chatTemplate'> {
  readonly prompt?: string;
  readonly promptFile?: string;
  readonly chat?: boolean;
  readonly logprobs?: number;
  readonly stats?: boolean;
  readonly json?: boolean;
}

export function generateCommand(): Command {
  const command = new Command('generate')
    .description('complete a prompt; text goes to stdout as it is generated')
    .argument('[prompt]', 'text to continue; `-` reads stdin');
  for (const flag of [...loadFlags(), maxStepsFlag(), promptCacheFlag()]) command.addOption(flag);
  command
    .option('-p, --prompt <text>', 'text to continue; `-` reads stdin')
    .option('--prompt-file <path>', 'file with the text to continue (one line break at its end is dropped)')
    .option('--chat', "answer the prompt as a user's message, written with the model's chat template");
  for (const flag of [...chatFlags(), ...samplingFlags()]) command.addOption(flag);
  return command
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
    const request = requestOf(prompt, flags, signal);
    await using engine = await Engine.load({ ...flags, signal });
    if (engine.fallbackReason !== null) note(`engine: ${engine.fallbackReason}`);
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
  const request = { ...samplingRequest(flags), logprobs: flags.logprobs, signal };
  const { system, chatTemplateKwargs } = flags;
  if (!flags.chat) {
    for (const [option, value] of Object.entries({ system, chatTemplateKwargs, chatTemplate: flags.chatTemplate })) {
      if (value !== undefined) throw new EngineError('OPTION_INVALID', { option, value, expected: '--chat with it' });
    }
    return { ...request, prompt };
  }
  const messages = [{ role: 'user', content: prompt }];
  if (system !== undefined) messages.unshift({ role: 'system', content: system });
  return { ...request, messages, chatTemplateKwargs };
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
