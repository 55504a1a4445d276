import type { Alternatives } from './alternatives.js';
import type { Usage } from './answer.js';
import { create } from './dom.js';
import { TokenView } from './token-view.js';

/** Times of one answer, in milliseconds of performance.now(). */
export interface AnswerTimes {
  readonly sent: number;
  firstToken: number | null;
  lastToken: number;
}

/** What the user said. */
export function userTurn(text: string): HTMLElement {
  return create('article', { className: 'turn user', ariaLabel: 'You' }, create('div', { className: 'said' }, text));
}

/** A line between the turns: an error, or something to decide, with a button if there is something to do. */
export function notice(text: string, action?: { label: string; run: () => void }): HTMLElement {
  const box = create('div', { className: 'notice', role: 'alert' }, create('p', {}, text));
  if (action) box.append(create('button', { type: 'button', className: 'primary', onclick: action.run }, action.label));
  return box;
}

/** An answer as it grows, with its statistics and what can be done with it. */
export class AnswerView {
  readonly tokens: TokenView;
  readonly element: HTMLElement;
  readonly #stats = create('p', { className: 'stats' });
  readonly #regenerate = create('button', { type: 'button', className: 'quiet regenerate' }, 'Regenerate');

  /** `prompt` is shown before the tokens where these continue it. */
  constructor(alternatives: Alternatives, prompt: string, onRegenerate: () => void) {
    this.tokens = new TokenView(alternatives);
    const copy = create('button', { type: 'button', className: 'quiet copy' }, 'Copy');
    copy.addEventListener('click', () => void this.#copy(copy));
    this.#regenerate.addEventListener('click', onRegenerate);
    const actions = create('div', { className: 'actions' }, this.#stats, copy, this.#regenerate);
    if (prompt !== '') this.tokens.element.append(create('span', { className: 'prompt' }, prompt));
    this.element = create(
      'article',
      { className: 'turn answer running', ariaLabel: 'Answer' },
      this.tokens.element,
      actions,
    );
  }

  finish(times: AnswerTimes, usage: Usage | null, reason: string): void {
    this.element.classList.remove('running');
    const parts: [string, string][] = [];
    if (times.firstToken !== null) parts.push(['first token', `${milliseconds(times.firstToken - times.sent)}`]);
    if (usage !== null) {
      const seconds = (times.lastToken - (times.firstToken ?? 0)) / 1000;
      if (usage.completion > 1 && seconds > 0) {
        const rate = (usage.completion - 1) / seconds;
        parts.push(['', `${rate < 100 ? rate.toFixed(1) : rate.toFixed(0)} tokens/s`]);
      }
      parts.push(['', `${usage.completion} ${usage.completion === 1 ? 'token' : 'tokens'}`]);
      parts.push(['prompt', `${usage.prompt}${usage.cached > 0 ? `, ${usage.cached} cached` : ''}`]);
    }
    parts.push(['ended:', reason]);
    this.#stats.replaceChildren(
      ...parts.map(([name, value]) => create('span', {}, ...(name === '' ? [] : [create('i', {}, `${name} `)]), value)),
    );
  }

  async #copy(button: HTMLButtonElement): Promise<void> {
    const copied = await navigator.clipboard?.writeText(this.tokens.text).then(
      () => true,
      () => false,
    );
    if (!copied) getSelection()?.selectAllChildren(this.tokens.element); // no clipboard without https: Ctrl-C then does it
    button.textContent = copied ? 'Copied' : 'Selected';
    setTimeout(() => {
      button.textContent = 'Copy';
    }, 1500);
  }
}

function milliseconds(time: number): string {
  return time < 1000 ? `${Math.round(time)} ms` : `${(time / 1000).toFixed(2)} s`;
}
