import { Aligner, type Piece } from './align.js';
import type { Alternatives } from './alternatives.js';
import type { Usage } from './answer.js';
import { type Api, ApiError, type Route } from './api.js';
import type { Controls, Mode } from './controls.js';
import { type AnswerTimes, AnswerView, notice, userTurn } from './turn-view.js';

const NUM_ALTERNATIVES = 5;
/** Pixels from the end of the conversation within which it follows a growing answer. */
const FOLLOW = 80;

interface Turn {
  readonly mode: Mode;
  readonly text: string;
  /** The user's words on the page; null where they are shown as the answer's beginning. */
  readonly said: HTMLElement | null;
  /** null until there is one. */
  answer: string | null;
  /** What came of it on the page, besides the user's own words. */
  shown: HTMLElement[];
}

/** What the page around a conversation does for it. */
export interface ChatHost {
  readonly log: HTMLElement;
  readonly alternatives: Alternatives;
  /** Name of the model to ask; throws ApiError. */
  model(): Promise<string>;
  /** Asks the user for a key; false if they give none. */
  askForKey(): Promise<boolean>;
  /** Something began or ended, with words for those who cannot see it. */
  onState(running: boolean, words: string): void;
}

/** A conversation: sends what the user writes, shows the answer token by token. */
export class Chat {
  #turns: Turn[] = [];
  #running: AbortController | null = null;

  constructor(
    readonly api: Api,
    readonly controls: Controls,
    readonly host: ChatHost,
  ) {}

  get isRunning(): boolean {
    return this.#running !== null;
  }

  get isEmpty(): boolean {
    return this.#turns.length === 0;
  }

  /** Adds a turn and answers it. */
  async send(text: string): Promise<void> {
    if (this.#running !== null) return;
    for (const old of this.host.log.querySelectorAll('.notice')) old.remove(); // what they offer is about the last turn
    const { mode } = this.controls;
    const said = mode === 'chat' ? userTurn(text) : null;
    if (said !== null) this.host.log.append(said);
    const turn: Turn = { mode, text, said, answer: null, shown: [] };
    this.#turns.push(turn);
    await this.#answer(turn);
  }

  /** Ends the answer that is being written; what there is of it stays. */
  stop(): void {
    this.#running?.abort();
  }

  /** Answers the last turn once more. */
  async regenerate(): Promise<void> {
    const turn = this.#turns.at(-1);
    if (turn === undefined || this.#running !== null) return;
    this.host.alternatives.hide();
    for (const element of turn.shown) element.remove();
    turn.shown = [];
    turn.answer = null;
    await this.#answer(turn);
  }

  clear(): void {
    this.stop();
    this.#turns = [];
    this.host.alternatives.hide();
    for (const turn of [...this.host.log.querySelectorAll('.turn, .notice')]) turn.remove();
    this.host.onState(this.isRunning, 'Conversation cleared');
  }

  async #answer(turn: Turn): Promise<void> {
    const running = new AbortController();
    this.#running = running;
    this.host.onState(true, 'Answering');
    const view = new AnswerView(
      this.host.alternatives,
      turn.mode === 'completion' ? turn.text : '',
      () => void this.regenerate(),
    );
    this.#show(turn, view.element);
    let words = 'Answer complete';
    try {
      const reason = await this.#stream(turn, view, running.signal);
      if (reason === 'stopped') words = 'Stopped';
    } catch (error) {
      if (view.tokens.text === '') view.element.remove();
      words = await this.#failed(turn, error);
    } finally {
      this.#running = null;
      this.host.onState(false, words);
    }
    if (words === 'retry') await this.regenerate();
  }

  /** Shows the answer as it comes; gives how it ended. Throws what ended it too early. */
  async #stream(turn: Turn, view: AnswerView, signal: AbortSignal): Promise<string> {
    const times: AnswerTimes = { sent: performance.now(), firstToken: null, lastToken: 0 };
    const aligner = new Aligner();
    let pieces: Piece[] = [];
    let usage: Usage | null = null;
    let reason = 'unknown';
    let failure: unknown = null;
    let frame = 0;
    const draw = (): void => {
      frame = 0;
      this.#following(() => view.tokens.push(pieces.splice(0)));
    };
    try {
      const [route, body] = this.#request(turn, await this.host.model());
      for await (const chunk of this.api.stream(route, body, signal)) {
        if (chunk.text !== '' || chunk.tokens.length > 0) {
          times.lastToken = performance.now();
          times.firstToken ??= times.lastToken;
        }
        pieces.push(...aligner.push(chunk.text, chunk.tokens));
        if (pieces.length > 0 && frame === 0) frame = requestAnimationFrame(draw); // at most one change per frame
        usage = chunk.usage ?? usage;
        reason = chunk.finishReason ?? reason;
      }
    } catch (error) {
      reason = signal.aborted ? 'stopped' : 'failed';
      if (!signal.aborted) failure = error;
    } finally {
      cancelAnimationFrame(frame);
    }
    const rest = aligner.flush();
    pieces = rest === null ? pieces : [...pieces, rest];
    draw();
    turn.answer = view.tokens.text;
    this.#following(() => view.finish(times, usage, reason));
    if (failure !== null) throw failure; // what came before it stays
    return reason;
  }

  #request({ mode, text }: Turn, model: string): [Route, object] {
    const body = {
      model,
      stream: true,
      stream_options: { include_usage: true },
      ...this.controls.sampling(),
    };
    if (mode === 'completion') return ['v1/completions', { ...body, prompt: text, logprobs: NUM_ALTERNATIVES }];
    const messages: { role: string; content: string }[] = [];
    if (this.controls.system !== '') messages.push({ role: 'system', content: this.controls.system });
    for (const turn of this.#turns.slice(0, -1)) {
      if (turn.mode !== 'chat' || !turn.answer) continue;
      messages.push({ role: 'user', content: turn.text }, { role: 'assistant', content: turn.answer });
    }
    messages.push({ role: 'user', content: text });
    return ['v1/chat/completions', { ...body, messages, logprobs: true, top_logprobs: NUM_ALTERNATIVES }];
  }

  /** Tells the user, with what can be done; gives 'retry' if that should be done at once. */
  async #failed(turn: Turn, error: unknown): Promise<string> {
    const message = error instanceof Error ? error.message : String(error);
    if (error instanceof ApiError && error.status === 401 && (await this.host.askForKey())) return 'retry';
    const again = { label: 'Try again', run: () => void this.regenerate() };
    const complete = {
      label: 'Continue the text instead',
      run: () => {
        this.controls.mode = 'completion';
        this.#turns.pop();
        for (const element of turn.shown) element.remove();
        turn.said?.remove();
        void this.send(turn.text);
      },
    };
    const noTemplate = error instanceof ApiError && error.code === 'chat_template_missing';
    this.#show(turn, notice(message, noTemplate ? complete : again));
    return 'The answer failed';
  }

  #show(turn: Turn, element: HTMLElement): void {
    turn.shown.push(element);
    this.host.log.append(element);
    element.scrollIntoView({ block: 'nearest' });
  }

  /** Makes a change, and stays at the end of the conversation if the user was there. */
  #following(change: () => void): void {
    const { log } = this.host;
    const follow = log.scrollHeight - log.scrollTop - log.clientHeight < FOLLOW;
    change();
    if (follow) log.scrollTop = log.scrollHeight;
  }
}
