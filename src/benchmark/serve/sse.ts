/** Of one event, in UTF-16 code units: far more than any token with its log-probabilities. */
const MAX_EVENT = 1 << 24;

/** Splits a stream of server-sent events (HTML Living Standard, 9.2) into the data of each event. */
export class EventSplitter {
  #rest = '';
  #data: string[] = [];

  /** Events that end in this piece of the stream. Throws RangeError for an event without an end. */
  push(text: string): string[] {
    const events: string[] = [];
    const lines = (this.#rest + text).split('\n');
    this.#rest = lines.pop()!;
    if (this.#rest.length > MAX_EVENT) throw new RangeError(`an event has more than ${MAX_EVENT} characters`);
    for (const ended of lines) {
      const line = ended.endsWith('\r') ? ended.slice(0, -1) : ended;
      if (line === '') {
        if (this.#data.length > 0) events.push(this.#data.join('\n'));
        this.#data = [];
      } else if (line.startsWith('data:')) {
        this.#data.push(line.slice(line[5] === ' ' ? 6 : 5));
      }
    }
    return events;
  }
}
