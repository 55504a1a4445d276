import { EngineError } from '../base/errors.js';
import type { ChatSession } from './chat-session.js';
import { type SamplingFlags, samplingFlags } from './flags.js';
import { formatTable, note } from './output.js';

interface ChatCommand {
  readonly usage: string;
  readonly help: string;
  readonly run: (session: ChatSession, argument: string) => void;
  readonly leaves?: boolean;
}

const commands: Readonly<Record<string, ChatCommand>> = {
  '/set': { usage: '/set [NAME [VALUE]]', help: 'a flag of sampling: /set top-k 5; `default` resets it', run: set },
  '/system': { usage: '/system [TEXT]', help: 'what the model is told first; `-` for nothing', run: system },
  '/save': { usage: '/save FILE', help: 'write the conversation to a file', run: save },
  '/load': { usage: '/load FILE', help: 'go on with a conversation from a file', run: load },
  '/clear': { usage: '/clear', help: 'forget the conversation', run: (session) => session.clear() },
  '/stats': { usage: '/stats', help: 'tokens and speed', run: (session) => note(session.describe()) },
  '/bye': { usage: '/bye', help: 'leave; Ctrl-D does too', run: () => undefined, leaves: true },
  '/?': { usage: '/?', help: 'this list', run: help },
};

const synonyms: Readonly<Record<string, string>> = { '/help': '/?', '/exit': '/bye', '/quit': '/bye' };

/** Runs a line that begins with a slash; true if the chat is over. Throws OPTION_INVALID for an unknown command. */
export function runCommand(session: ChatSession, line: string): boolean {
  const [, name = '', argument = ''] = /^\s*(\S+)\s*(.*)$/s.exec(line) ?? [];
  const known = synonyms[name] ?? name;
  if (!Object.hasOwn(commands, known)) {
    const expected = `one of ${Object.keys(commands).join(' ')}, or """ before a message that begins with a slash`;
    throw new EngineError('OPTION_INVALID', { option: 'the command', value: name, expected });
  }
  const command = commands[known]!;
  command.run(session, argument.trim());
  return command.leaves === true;
}

function save(session: ChatSession, path: string): void {
  if (path === '') throw new EngineError('OPTION_INVALID', { option: '/save', value: path, expected: 'a file' });
  session.save(path);
}

function load(session: ChatSession, path: string): void {
  if (path === '') throw new EngineError('OPTION_INVALID', { option: '/load', value: path, expected: 'a file' });
  session.load(path);
}

function help(): void {
  const rows = Object.values(commands).map(({ usage, help }) => [usage, help] as const);
  note(
    formatTable([
      ...rows,
      ['"""', 'begins and ends a message of several lines'],
      ['Ctrl-C', 'stops the answer'],
    ]).trimEnd(),
  );
}

function system(session: ChatSession, text: string): void {
  if (text === '') note(session.system ?? '(none)');
  else session.system = text === '-' ? null : text;
}

function set(session: ChatSession, argument: string): void {
  const [, name = '', value = ''] = /^(\S*)\s*(.*)$/s.exec(argument) ?? [];
  const settable = samplingFlags();
  const nameOf = (flag: (typeof settable)[number]) => flag.long!.slice(2);
  const values = session.sampling as Readonly<Record<string, unknown>>;
  if (name === '') {
    const shown = settable.map((flag) => [nameOf(flag), values[flag.attributeName()]] as const);
    note(formatTable(shown.map(([key, v]) => [key, v === undefined ? 'default' : JSON.stringify(v)])).trimEnd());
    return;
  }
  const flag = settable.find((candidate) => nameOf(candidate) === name.replace(/^--/, ''));
  if (flag === undefined) {
    const expected = `one of ${settable.map(nameOf).join(', ')}`;
    throw new EngineError('OPTION_INVALID', { option: '/set', value: name, expected });
  }
  const key = flag.attributeName();
  if (value === '') note(JSON.stringify(values[key]) ?? 'default');
  else session.sampling = { ...values, [key]: value === 'default' ? undefined : parsed(flag, value) } as SamplingFlags;
}

function parsed(flag: ReturnType<typeof samplingFlags>[number], value: string): unknown {
  if (flag.parseArg !== undefined) return flag.parseArg(value, undefined);
  if (value === 'on' || value === 'off') return value === 'on';
  throw new EngineError('OPTION_INVALID', { option: flag.long!, value, expected: 'on or off' });
}
