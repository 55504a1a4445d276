import { createInterface } from 'node:readline';
import { Command } from 'commander';
import { EngineError } from '../base/errors.js';
import { Engine } from '../library/engine.js';
import type { LoadOptions } from '../library/load-options.js';
import { runCommand } from './chat-commands.js';
import { ChatSession, explain } from './chat-session.js';
import { type ChatFlags, chatFlags, loadFlags, promptCacheFlag, type SamplingFlags, samplingFlags } from './flags.js';
import { note, Output, reportError } from './output.js';
import { stdinLines } from './prompt.js';
import { type Turn, TurnReader } from './turn-reader.js';

interface ChatCommandFlags extends LoadOptions, SamplingFlags, Omit<ChatFlags, 'chatTemplate'> {
  readonly stats?: boolean;
}

export function chatCommand(): Command {
  const command = new Command('chat').description(
    'talk with a model; from a pipe, every line is a message. /? lists what else can be entered',
  );
  for (const flag of [...loadFlags(), promptCacheFlag(), ...chatFlags(), ...samplingFlags()]) command.addOption(flag);
  return command.option('--stats', 'timings on stderr after every answer').action(chat);
}

async function chat(flags: ChatCommandFlags): Promise<void> {
  const loading = new AbortController();
  let interrupt = () => loading.abort();
  const onInterrupt = () => interrupt();
  process.on('SIGINT', onInterrupt);
  const output = new Output();
  try {
    await using engine = await Engine.load({ ...flags, signal: loading.signal });
    if (engine.fallbackReason !== null) note(`engine: ${engine.fallbackReason}`);
    if (engine.chatTemplate === null) throw new EngineError('CHAT_TEMPLATE_MISSING', { path: engine.model.path });
    const { system = null, chatTemplateKwargs, stats = false } = flags;
    const isAtTerminal = process.stdin.isTTY === true;
    const options = { system, sampling: flags, chatTemplateKwargs, stats, isAtTerminal };
    const session = new ChatSession(engine, output, options);
    if (isAtTerminal) {
      note(`${engine.model.name} on ${engine.backend}; /? lists commands, Ctrl-D leaves`);
      await chatAtTerminal(session, output, (handler) => {
        interrupt = handler;
      });
    } else {
      interrupt = () => {
        process.exitCode = 130;
        if (!session.interrupt()) process.exit();
      };
      await chatThroughPipe(session);
    }
  } finally {
    process.off('SIGINT', onInterrupt);
  }
}

/** Takes a turn; true if the chat is over. */
async function take(session: ChatSession, { text, isBlock }: Turn): Promise<boolean> {
  if (!isBlock && text.trimStart().startsWith('/')) return runCommand(session, text);
  const { finishReason } = await session.answer(text);
  return finishReason === 'abort' && !process.stdin.isTTY;
}

/** Every line is a message or a command; the first error ends the program, and so does an interrupt. */
async function chatThroughPipe(session: ChatSession): Promise<void> {
  const reader = new TurnReader();
  for await (const line of stdinLines()) {
    const turn = reader.push(line);
    if (turn !== null && (await take(session, turn))) return;
  }
  const last = reader.end();
  if (last !== null) await take(session, last);
}

/**
 * Prompts and what is typed go to stderr, so that stdout has nothing but answers. Ctrl-C stops an answer, or drops what
 * has been typed; the program is left by Ctrl-D or a command.
 */
async function chatAtTerminal(
  session: ChatSession,
  output: Output,
  onInterrupt: (handler: () => void) => void,
): Promise<void> {
  const reader = new TurnReader();
  const terminal = createInterface({ input: process.stdin, output: process.stderr, historySize: 1000 });
  const ask = () => {
    terminal.setPrompt(reader.isInBlock ? '... ' : '>>> ');
    terminal.prompt();
  };
  const interrupt = () => {
    if (session.interrupt()) return;
    const isEmpty = terminal.line === '' && !reader.isInBlock;
    reader.end();
    terminal.write(null, { ctrl: true, name: 'e' }); // to the end of the line,
    terminal.write(null, { ctrl: true, name: 'u' }); // and delete all before
    note(isEmpty ? '\nCtrl-D or /bye leaves' : '');
    ask();
  };
  onInterrupt(interrupt);
  terminal.on('SIGINT', interrupt);
  try {
    ask();
    for await (const line of terminal) {
      const turn = reader.push(line);
      try {
        if (turn !== null && (await take(session, turn))) return;
      } catch (error) {
        reportError(error);
        explain(error);
      }
      if (output.closed) return;
      ask();
    }
    note('');
  } finally {
    terminal.close();
  }
}
