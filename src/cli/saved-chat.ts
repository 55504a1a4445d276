import { writeFileSync } from 'node:fs';
import { EngineError } from '../base/errors.js';
import { Fields } from '../formats/fields.js';
import { readJsonFile } from '../formats/json.js';
import type { ChatMessage } from '../tokenizer/chat-template.js';

/** A conversation as /save writes it. */
export interface SavedChat {
  readonly version: 1;
  /** Name of the model it was held with. */
  readonly model: string;
  readonly system: string | null;
  readonly messages: readonly ChatMessage[];
}

/** Throws FILE_UNWRITABLE. */
export function saveChat(path: string, chat: SavedChat): void {
  try {
    writeFileSync(path, `${JSON.stringify(chat, null, 2)}\n`);
  } catch (error) {
    throw new EngineError('FILE_UNWRITABLE', { path, reason: (error as Error).message }, { cause: error });
  }
}

/** Throws FILE_NOT_FOUND, FILE_UNREADABLE, FORMAT_INVALID and CONFIG_INVALID for a file that is no saved chat. */
export function loadChat(path: string): SavedChat {
  const file = readJsonFile(path, 'saved chat');
  const fields = new Fields(path, file);
  fields.uint('version', { min: 1, max: 1 });
  const messages = Array.isArray(file.messages) ? file.messages : [];
  return {
    version: 1,
    model: fields.string('model'),
    system: fields.optionalString('system'),
    messages: messages.map((message, i) => {
      const turn = new Fields(path, Object(message) as Record<string, never>, `messages[${i}].`);
      return { role: turn.oneOf('role', ['user', 'assistant']), content: turn.string('content') };
    }),
  };
}
