import { create, recall, remember } from './dom.js';

export type Mode = 'chat' | 'completion';

interface NumberControl {
  readonly name: string;
  readonly label: string;
  readonly hint: string;
  readonly kind: 'range' | 'number';
  readonly min: number;
  readonly max: number;
  readonly step: number;
  /** '' is "left to the server". */
  readonly initial: number | '';
}

/** The engine's own defaults; the names are those of the requests. */
const controls: readonly NumberControl[] = [
  row('temperature', 'Temperature', 'range', 0, 2, 0.05, 0.8, '0 always takes the most likely token'),
  row('top_p', 'Top-p', 'range', 0.01, 1, 0.01, 0.95, 'keeps the likeliest tokens up to this sum'),
  row('min_p', 'Min-p', 'range', 0, 0.5, 0.01, 0.05, 'drops tokens below this share of the likeliest'),
  row('top_k', 'Top-k', 'number', 0, 1000, 1, 40, '0 keeps all'),
  row('max_tokens', 'Max tokens', 'number', 1, 131_072, 1, 512, 'the answer ends here at the latest'),
  row('seed', 'Seed', 'number', 0, 2_147_483_647, 1, '', 'empty: another answer each time'),
];

/** OpenAI's limit. */
const MAX_STOPS = 4;

function row(
  name: string,
  label: string,
  kind: NumberControl['kind'],
  min: number,
  max: number,
  step: number,
  initial: number | '',
  hint: string,
): NumberControl {
  return { name, label, kind, min, max, step, initial, hint };
}

/** The settings panel: builds its form, and reads requests from it. */
export class Controls {
  readonly #inputs = new Map<string, HTMLInputElement>();
  readonly #system = create('textarea', { id: 'system', rows: 2, maxLength: 100_000, placeholder: 'none' });
  readonly #stop = create('textarea', { id: 'stop-strings', rows: 2, maxLength: 4_000, placeholder: 'none' });
  readonly #tint = create('input', { id: 'tint', type: 'checkbox', checked: true });
  readonly #modes = (['chat', 'completion'] as const).map((value) =>
    create('input', { type: 'radio', name: 'mode', id: `mode-${value}`, value, checked: value === 'chat' }),
  );

  constructor(
    form: HTMLFormElement,
    readonly onChange: () => void,
  ) {
    const modes = create('fieldset', { className: 'modes' }, create('legend', { className: 'unseen' }, 'Mode'));
    for (const input of this.#modes) {
      modes.append(input, create('label', { htmlFor: input.id }, input.value === 'chat' ? 'Chat' : 'Completion'));
    }
    form.append(modes, field('System prompt', this.#system), create('h2', {}, 'Sampling'));
    const numbers = create('div', { className: 'numbers' });
    for (const control of controls) (control.kind === 'range' ? form : numbers).append(this.#number(control));
    form.append(numbers);
    form.append(field('Stop strings', this.#stop, 'one per line; \\n is a line break'));
    const scale = create('span', { className: 'scale', ariaHidden: 'true' });
    form.append(create('h2', {}, 'Tokens'), create('label', { className: 'check' }, this.#tint, 'Tint by surprise'));
    form.append(create('p', { className: 'legend' }, 'expected', scale, '8 bits and more'));
    form.addEventListener('submit', (event) => event.preventDefault());
    this.#restore();
    form.addEventListener('input', () => this.#changed());
    form.addEventListener('focusout', () => this.#correct());
    this.#changed();
  }

  get mode(): Mode {
    return this.#modes[1]!.checked ? 'completion' : 'chat';
  }

  set mode(mode: Mode) {
    for (const input of this.#modes) input.checked = input.value === mode;
    this.#changed();
  }

  get system(): string {
    return this.#system.value;
  }

  get tint(): boolean {
    return this.#tint.checked;
  }

  /** The sampling fields of a request. */
  sampling(): Record<string, number | string[]> {
    const fields: Record<string, number | string[]> = {};
    for (const { name, min, max, initial } of controls) {
      const value = this.#inputs.get(name)!.value === '' ? initial : this.#inputs.get(name)!.valueAsNumber;
      if (value !== '' && Number.isFinite(value)) fields[name] = Math.min(max, Math.max(min, value));
    }
    const stops = this.#stop.value.split('\n').filter((line) => line !== '');
    if (stops.length > 0) fields.stop = stops.slice(0, MAX_STOPS).map((line) => line.replaceAll('\\n', '\n'));
    return fields;
  }

  #number({ name, label, kind, min, max, step, initial, hint }: NumberControl): HTMLElement {
    const input = create('input', { id: name, type: kind, min: `${min}`, max: `${max}`, step: `${step}` });
    input.value = `${initial}`; // after min and max, which would clamp it
    input.placeholder = 'random';
    this.#inputs.set(name, input);
    if (kind === 'range') return field(label, input, hint);
    input.title = hint;
    return field(label, input);
  }

  /** A number beyond its limits becomes the nearest that is allowed, when the user has finished writing it. */
  #correct(): void {
    for (const { name, min, max, initial } of controls) {
      const input = this.#inputs.get(name)!;
      if (input.value === '') input.value = `${initial}`;
      else if (!input.validity.valid) input.value = `${Math.round(Math.min(max, Math.max(min, input.valueAsNumber)))}`;
    }
  }

  #changed(): void {
    for (const input of this.#inputs.values()) {
      const shown = input.parentElement?.querySelector('output');
      if (shown) shown.value = input.valueAsNumber.toFixed(2);
    }
    const numbers = Object.fromEntries([...this.#inputs].map(([name, { value }]) => [name, value]));
    const texts = { mode: this.mode, system: this.system, stop: this.#stop.value, tint: this.tint };
    remember('settings', JSON.stringify({ ...numbers, ...texts }));
    this.onChange();
  }

  #restore(): void {
    let saved: Record<string, unknown>;
    try {
      saved = JSON.parse(recall('settings') ?? '{}') as Record<string, unknown>;
    } catch {
      return; // not ours
    }
    for (const [name, input] of this.#inputs) if (typeof saved[name] === 'string') input.value = saved[name];
    if (typeof saved.system === 'string') this.#system.value = saved.system;
    if (typeof saved.stop === 'string') this.#stop.value = saved.stop;
    if (typeof saved.tint === 'boolean') this.#tint.checked = saved.tint;
    this.#modes[1]!.checked = saved.mode === 'completion';
    this.#modes[0]!.checked = !this.#modes[1]!.checked;
  }
}

/** A labelled control; sliders show their value beside the label. */
function field(label: string, control: HTMLInputElement | HTMLTextAreaElement, hint?: string): HTMLElement {
  const box = create('div', { className: 'field' }, create('label', { htmlFor: control.id }, label));
  if (control.type === 'range') box.append(create('output', { htmlFor: control.id } as object));
  box.append(control);
  if (hint !== undefined) {
    const id = `${control.id}-hint`;
    box.append(create('small', { id }, hint));
    control.setAttribute('aria-describedby', id);
  }
  return box;
}
