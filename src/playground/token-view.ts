import type { Piece } from './align.js';
import type { Token } from './answer.js';
import { create } from './dom.js';

/** Surprise at which the tint is strongest, in bits. */
const MAX_BITS = 6;
/** Pixels between a token and its alternatives, and between these and the window's edge. */
const GAP = 8;

/** An answer as a row of tokens, each with what else the model might have said. One stop for Tab; arrows move within. */
export class TokenView {
  readonly element = create('div', { className: 'tokens', role: 'group', ariaLabel: 'Answer' });
  #pieces: Piece[] = [];

  constructor(readonly panel: HTMLElement) {
    this.element.addEventListener('pointerover', ({ target }) => this.#show(target));
    this.element.addEventListener('pointerleave', () => this.hide());
    this.element.addEventListener('focusin', ({ target }) => this.#show(target));
    this.element.addEventListener('focusout', () => this.hide());
    this.element.addEventListener('keydown', (event) => this.#move(event));
  }

  get text(): string {
    return this.#pieces.map(({ text }) => text).join('');
  }

  push(pieces: readonly Piece[]): void {
    const spans = pieces.map((piece) => {
      const index = this.#pieces.push(piece) - 1;
      const span = create('span', { textContent: piece.text });
      if (piece.tokens.length === 0) return span;
      span.className = 'token';
      span.dataset.index = `${index}`;
      span.tabIndex = this.element.querySelector('.token') === null && index === 0 ? 0 : -1;
      const bits = Math.max(...piece.tokens.map(surprise));
      span.style.setProperty('--surprise', (Math.min(bits, MAX_BITS) / MAX_BITS).toFixed(3));
      return span;
    });
    this.element.append(...spans);
  }

  hide(): void {
    this.panel.hidden = true;
    for (const span of this.element.querySelectorAll('[aria-describedby]')) span.removeAttribute('aria-describedby');
  }

  #show(target: EventTarget | null): void {
    const index = target instanceof HTMLElement ? target.dataset.index : undefined;
    this.hide();
    if (index === undefined) return;
    const span = target as HTMLElement;
    this.panel.replaceChildren(...this.#pieces[Number(index)]!.tokens.flatMap(alternatives));
    this.panel.hidden = false;
    span.setAttribute('aria-describedby', this.panel.id);
    // A token that is wrapped has a box on each line; the panel belongs to the first.
    const box = span.getClientRects()[0] ?? span.getBoundingClientRect();
    const { offsetWidth: width, offsetHeight: height } = this.panel;
    const left = Math.min(Math.max(GAP, box.left + box.width / 2 - width / 2), innerWidth - width - GAP);
    const above = box.top - height - GAP;
    const top = this.element.parentElement?.parentElement?.getBoundingClientRect().top ?? 0; // of the conversation
    this.panel.style.left = `${Math.round(left)}px`;
    this.panel.style.top = `${Math.round(above > top ? above : box.bottom + GAP)}px`;
  }

  #move(event: KeyboardEvent): void {
    const spans = [...this.element.querySelectorAll<HTMLElement>('.token')];
    const at = spans.indexOf(event.target as HTMLElement);
    const steps: Record<string, number> = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: spans.length - 1 };
    const next = spans[steps[event.key] ?? -1];
    if (next === undefined || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    for (const span of spans) span.tabIndex = span === next ? 0 : -1;
    next.focus();
  }
}

/** How little a token was expected, in bits. */
function surprise({ logprob }: Token): number {
  return -logprob / Math.LN2;
}

/** The heading and bars of one token. */
function alternatives(token: Token): HTMLElement[] {
  const known = token.top.some(({ text }) => text === token.text);
  const bits = surprise(token);
  const detail = `${bits < 9.95 ? bits.toFixed(1) : bits.toFixed(0)} bits of surprise`;
  const heading = create('p', {}, create('b', {}, percent(token.logprob)), create('span', {}, detail));
  const list = create('ol');
  for (const alternative of known ? token.top : [...token.top, token]) {
    const share = Math.exp(alternative.logprob);
    const bar = create('i');
    bar.style.width = `${Math.max(1, share * 100).toFixed(1)}%`;
    const item = create(
      'li',
      { className: alternative.text === token.text ? 'chosen' : '' },
      create('code', {}, visible(alternative.text)),
      create('span', { className: 'bar', ariaHidden: 'true' }, bar),
      create('span', { className: 'share' }, percent(alternative.logprob)),
    );
    list.append(item);
  }
  return [heading, list];
}

function percent(logprob: number): string {
  const share = Math.exp(logprob) * 100;
  if (share >= 99.95) return '100 %';
  return share < 0.01 ? '< 0.01 %' : `${share < 0.1 ? share.toFixed(2) : share.toFixed(1)} %`;
}

/** Text with its white space to be seen. */
function visible(text: string): string {
  if (text === '') return '(end)';
  return text.replaceAll(' ', '␣').replaceAll('\n', '↵').replaceAll('\t', '⇥').replaceAll('\r', '␍');
}
