/** Longest event accepted, in UTF-16 code units: a server that never ends one must not fill the page's memory. */
const MAX_EVENT = 1 << 20;

/**
 * The data of each server-sent event in a body, as the HTML standard reads them (section 9.2.6): lines end in LF, CR or
 * CRLF wherever the network cut them, several data lines are joined, comments and other fields are left out. An event
 * that was never ended by an empty line is dropped.
 */
export async function* eventData(body: ReadableStream<Uint8Array>): AsyncGenerator<string, void> {
  const reader = body.getReader();
  const utf8 = new TextDecoder();
  let rest = '';
  let data: string[] = [];
  let size = 0;
  try {
    for (;;) {
      const { done, value } = await reader.read();
      rest += utf8.decode(value, { stream: !done });
      const lines = rest.split(/\r\n|\n|\r(?!$)/); // a CR at the end may be half of a CRLF
      rest = lines.pop()!;
      if (done && rest.endsWith('\r')) lines.push(rest.slice(0, -1));
      for (const line of lines) {
        if (line !== '') {
          const value = dataOf(line);
          if (value === null) continue;
          data.push(value);
          size += value.length;
        } else if (data.length > 0) {
          yield data.join('\n');
          data = [];
          size = 0;
        }
      }
      if (rest.length + size > MAX_EVENT) throw new RangeError(`an event is longer than ${MAX_EVENT} characters`);
      if (done) return;
    }
  } finally {
    // Also when whoever reads stops early: the server then sees that nobody listens.
    await reader.cancel().catch(() => undefined);
  }
}

/** The value of a data line, or null for any other. */
function dataOf(line: string): string | null {
  if (line === 'data') return '';
  return line.startsWith('data:') ? line.slice(line[5] === ' ' ? 6 : 5) : null;
}
