import { Command } from 'commander';
import { kernelsCommand } from './bench-kernels.js';
import { ladderCommand } from './bench-ladder.js';
import { peersCommand } from './bench-peers.js';
import { serveCommand } from './bench-serve.js';
import { speedCommand } from './bench-speed.js';
import { syntheticCommand } from './bench-synthetic.js';

export function benchCommand(): Command {
  return new Command('bench')
    .description('measure speed, alone or beside other engines')
    .addCommand(speedCommand('prefill'))
    .addCommand(speedCommand('decode'))
    .addCommand(kernelsCommand())
    .addCommand(ladderCommand())
    .addCommand(peersCommand())
    .addCommand(serveCommand())
    .addCommand(syntheticCommand());
}
