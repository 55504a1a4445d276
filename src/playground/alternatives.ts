import type { Token } from './answer.js';
import { create } from './dom.js';

/** Pixels between a token and its alternatives, and between these and the window's edge. */
const GAP = 8;

/** The panel that shows what else the model might have said in a token's place. It stays with the token. */
export class Alternatives {
  #shown: HTMLElement | null = null;

  /** `view` is what scrolls the tokens. */
  constructor(
    readonly panel: HTMLElement,
    readonly view: HTMLElement,
  ) {
    view.addEventListener('scroll', () => this.#place(), { passive: true });
  }

  show(token: HTMLElement, tokens: readonly Token[]): void {
    this.hide();
    this.#shown = token;
    token.setAttribute('aria-describedby', this.panel.id);
    this.panel.replaceChildren(...tokens.flatMap(describe));
    this.#place();
  }

  hide(): void {
    this.#shown?.removeAttribute('aria-describedby');
    this.#shown = null;
    this.panel.hidden = true;
  }

  /** Above the token, or below where there is no room; nowhere while the token is out of sight. */
  #place(): void {
    if (this.#shown === null) return;
    const view = this.view.getBoundingClientRect();
    // A token that is wrapped has a box on each line; the panel belongs to the first.
    const box = this.#shown.getClientRects()[0] ?? this.#shown.getBoundingClientRect();
    this.panel.hidden = box.bottom < view.top || box.top > view.bottom;
    const { offsetWidth: width, offsetHeight: height } = this.panel;
    const left = Math.min(Math.max(GAP, box.left + box.width / 2 - width / 2), innerWidth - width - GAP);
    const above = box.top - height - GAP;
    this.panel.style.left = `${Math.round(left)}px`;
    this.panel.style.top = `${Math.round(above > view.top ? above : box.bottom + GAP)}px`;
  }
}

/** How little a token was expected, in bits. */
export function surprise({ logprob }: Token): number {
  return -logprob / Math.LN2;
}

/** The heading and bars of one token. */
function describe(token: Token): HTMLElement[] {
  const isKnown = token.top.some(({ text }) => text === token.text);
  const bits = surprise(token);
  const detail = `${bits < 9.95 ? bits.toFixed(1) : bits.toFixed(0)} bits of surprise`;
  const heading = create('p', {}, create('b', {}, percent(token.logprob)), create('span', {}, detail));
  const list = create('ol');
  for (const { text, logprob } of isKnown ? token.top : [...token.top, token]) {
    const bar = create('i');
    bar.style.width = `${Math.max(1, Math.exp(logprob) * 100).toFixed(1)}%`;
    const item = create(
      'li',
      { className: text === token.text ? 'chosen' : '' },
      create('code', {}, visible(text)),
      create('span', { className: 'bar', ariaHidden: 'true' }, bar),
      create('span', { className: 'share' }, percent(logprob)),
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
