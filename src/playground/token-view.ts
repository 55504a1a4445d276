import type { Piece } from './align.js';
import { type Alternatives, surprise } from './alternatives.js';
import { create } from './dom.js';

/** Surprise at which the tint is strongest, in bits. */
const MAX_BITS = 8;

/** An answer as a row of tokens, each with what else the model might have said. One stop for Tab; arrows move within. */
export class TokenView {
  readonly element = create('div', { className: 'tokens', role: 'group', ariaLabel: 'Answer' });
  #pieces: Piece[] = [];

  constructor(readonly alternatives: Alternatives) {
    this.element.addEventListener('pointerover', ({ target }) => this.#show(target));
    this.element.addEventListener('pointerleave', () => alternatives.hide());
    this.element.addEventListener('focusin', ({ target }) => this.#show(target));
    this.element.addEventListener('focusout', () => alternatives.hide());
    this.element.addEventListener('keydown', (event) => this.#move(event));
  }

  get text(): string {
    return this.#pieces.map(({ text }) => text).join('');
  }

  push(pieces: readonly Piece[]): void {
    let isFirst = this.element.querySelector('.token') === null;
    for (const piece of pieces) {
      const index = this.#pieces.push(piece) - 1;
      const span = create('span', { textContent: piece.text });
      this.element.append(span);
      if (piece.tokens.length === 0) continue;
      span.className = 'token';
      span.dataset.index = `${index}`;
      span.tabIndex = isFirst ? 0 : -1;
      isFirst = false;
      const bits = Math.max(...piece.tokens.map(surprise));
      span.style.setProperty('--surprise', (Math.min(bits, MAX_BITS) / MAX_BITS).toFixed(3));
    }
  }

  #show(target: EventTarget | null): void {
    const token = target instanceof HTMLElement && target.dataset.index !== undefined ? target : null;
    if (token === null) this.alternatives.hide();
    else this.alternatives.show(token, this.#pieces[Number(token.dataset.index)]!.tokens);
  }

  #move(event: KeyboardEvent): void {
    const tokens = [...this.element.querySelectorAll<HTMLElement>('.token')];
    const at = tokens.indexOf(event.target as HTMLElement);
    const steps: Record<string, number> = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: tokens.length - 1 };
    const next = tokens[steps[event.key] ?? -1];
    if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    for (const token of tokens) token.tabIndex = token === next ? 0 : -1;
    next.focus();
  }
}
