/** What was entered: a message, or a line that may be a command. */
export interface Turn {
  readonly text: string;
  /** Written between `"""`, so that it is a message whatever it begins with. */
  readonly isBlock: boolean;
}

const QUOTES = '"""';

/** Puts lines together: one line is one turn, but for the lines from `"""` to `"""`. */
export class TurnReader {
  #block: string[] | null = null;

  /** Whether a block has begun and not ended. */
  get isInBlock(): boolean {
    return this.#block !== null;
  }

  /** The turn that a line completes; null for a line that completes none, or is blank. */
  push(line: string): Turn | null {
    let rest = line;
    if (this.#block === null) {
      if (!line.trimStart().startsWith(QUOTES)) return line.trim() === '' ? null : { text: line, isBlock: false };
      this.#block = [];
      rest = line.trimStart().slice(QUOTES.length);
      if (rest === '') return null;
    }
    const isEnd = rest.trimEnd().endsWith(QUOTES);
    if (!isEnd || rest.trim() !== QUOTES) this.#block.push(isEnd ? rest.trimEnd().slice(0, -QUOTES.length) : rest);
    return isEnd ? this.end() : null;
  }

  /** Ends a block that has begun; null if there is none, or nothing in it. */
  end(): Turn | null {
    const text = this.#block?.join('\n') ?? '';
    this.#block = null;
    return text.trim() === '' ? null : { text, isBlock: true };
  }
}
