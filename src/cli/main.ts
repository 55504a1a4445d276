#!/usr/bin/env node
import { readFileSync } from 'node:fs';
import { Command, CommanderError } from 'commander';
import { note, Output, reportError } from './output.js';

/** Each loads its own modules, so that a command does not wait for those of the others. In the order of the help. */
const commands: Readonly<Record<string, () => Promise<Command>>> = {
  generate: async () => (await import('./generate.js')).generateCommand(),
  chat: async () => (await import('./chat.js')).chatCommand(),
  serve: async () => (await import('./serve.js')).serveCommand(),
  embed: async () => (await import('./embed.js')).embedCommand(),
  tokenize: async () => (await import('./tokenize.js')).tokenizeCommand(),
  inspect: async () => (await import('./inspect.js')).inspectCommand(),
  doctor: async () => (await import('./doctor.js')).doctorCommand(),
  quantize: async () => (await import('./quantize.js')).quantizeCommand(),
  eval: async () => (await import('./eval.js')).evalCommand(),
  bench: async () => (await import('./bench.js')).benchCommand(),
};

const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url), 'utf8')) as {
  version: string;
};

const program = new Command('engine')
  .description('Transformer inference in Node.js: generate text with models in GGUF or safetensors files')
  .version(version)
  .configureHelp({ showGlobalOptions: true });
// Anything but the name of a command, such as --help or a misspelt one, is about all of them.
const named = Object.hasOwn(commands, process.argv[2] ?? '') ? [process.argv[2]!] : Object.keys(commands);
for (const name of named) program.addCommand(await commands[name]!());
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
