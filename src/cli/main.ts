#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { benchCommand } from './bench.js';
import { chatCommand } from './chat.js';
import { doctorCommand } from './doctor.js';
import { evalCommand } from './eval.js';
import { generateCommand } from './generate.js';
import { inspectCommand } from './inspect.js';
import { note, Output, reportError } from './output.js';
import { quantizeCommand } from './quantize.js';
import { tokenizeCommand } from './tokenize.js';

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

const program = new Command('engine')
  .description('Transformer inference in Node.js: generate text with models in GGUF or safetensors files')
  .version(version)
  .configureHelp({ showGlobalOptions: true });
for (const command of [generateCommand(), chatCommand(), tokenizeCommand(), inspectCommand(), doctorCommand()])
  program.addCommand(command);
program.addCommand(quantizeCommand());
program.addCommand(evalCommand());
program.addCommand(benchCommand());
for (const command of [program, ...program.commands, ...program.commands.flatMap(({ commands }) => commands)])
  command
    .exitOverride()
    .configureOutput({ writeErr: () => undefined, writeOut: (text) => void new Output().write(text) });

process.stderr.on('error', () => undefined); // there is nowhere left to report it

try {
  if (process.argv.length <= 2) program.outputHelp();
  else await program.parseAsync();
} catch (error) {
  if (!(error instanceof CommanderError)) process.exitCode = reportError(error);
  else if (error.exitCode !== 0) {
    // What commander objects to is the user's: an unknown command or flag, a missing value.
    const message = error.code === 'commander.help' ? 'a command is missing' : error.message;
    const problem = message.replace(/^error: /, '').replace(/\n.*/s, '');
    note(`engine: [USAGE] ${problem}; see engine --help`);
    process.exitCode = 2;
  }
}
