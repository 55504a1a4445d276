import { Command } from 'commander';
import { EngineError } from '../base/errors.js';
import { embeddedModel } from '../library/embedded-model.js';
import { openTokenizer } from '../library/open-tokenizer.js';
import { modelFlag } from './flags.js';
import { Output } from './output.js';
import { readPrompt } from './prompt.js';

interface TokenizeFlags {
  readonly model?: string;
  readonly promptFile?: string;
  readonly special: boolean;
  readonly parseSpecial?: boolean;
  readonly decode?: boolean;
  readonly json?: boolean;
}

export function tokenizeCommand(): Command {
  return new Command('tokenize')
    .description('print the token ids of a text, one a line with its token; or, with --decode, the text of token ids')
    .argument('[text]', 'text (or token ids, with --decode); `-` or nothing reads stdin')
    .addOption(modelFlag())
    .option('--prompt-file <path>', 'file with the text')
    .option('--no-special', 'do not add the beginning-of-text token')
    .option('--parse-special', 'special tokens written in the text are special tokens, not text')
    .option('--decode', 'token ids in, separated by spaces or commas; text out')
    .option('--json', 'print one JSON object')
    .action(tokenize);
}

async function tokenize(argument: string | undefined, flags: TokenizeFlags): Promise<void> {
  const input = await readPrompt({ argument, promptFile: flags.promptFile });
  const model = flags.model ?? embeddedModel;
  const tokenizer = await openTokenizer(model);
  const ids = flags.decode
    ? parseIds(input)
    : [...tokenizer.encode(input, { addSpecialTokens: flags.special, parseSpecial: flags.parseSpecial ?? false })];
  const text = flags.decode ? tokenizer.decode(ids) : input;
  const tokens = ids.map((id) => tokenizer.tokenText(id));
  const output = new Output();
  if (flags.json) await output.json({ model, text, token_ids: ids, tokens });
  else if (flags.decode) await output.write(`${text}\n`);
  else await output.write(ids.map((id, i) => `${id}\t${JSON.stringify(tokens[i])}\n`).join(''));
}

function parseIds(text: string): number[] {
  return text
    .replace(/^\s*\[|\]\s*$/g, '')
    .split(/[\s,]+/)
    .filter((word) => word !== '')
    .map((word) => {
      if (/^\d{1,10}$/.test(word)) return Number(word);
      throw new EngineError('OPTION_INVALID', {
        option: '--decode',
        value: word,
        expected: 'token ids, whole numbers from 0',
      });
    });
}
