import { Command } from 'commander';
import { EngineError } from '../base/errors.js';
import { klCommand } from './eval-kl.js';
import { perplexityCommand } from './eval-perplexity.js';

export function evalCommand(): Command {
  const command = new Command('eval')
    .description('quality of a model: perplexity on a text, or divergence from a reference model')
    .addCommand(perplexityCommand())
    .addCommand(klCommand())
    .allowExcessArguments();
  return command.action(() => {
    const [value] = command.args;
    if (value === undefined) command.outputHelp();
    else throw new EngineError('OPTION_INVALID', { option: 'engine eval', value, expected: 'perplexity or kl' });
  });
}
