/** An element with properties and children. Text goes in as text, so that nothing in it can become markup. */
export function create<K extends keyof HTMLElementTagNameMap>(
  tag: K,
  properties: Partial<HTMLElementTagNameMap[K]> = {},
  ...children: (Node | string)[]
): HTMLElementTagNameMap[K] {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
}

/** The element of index.html with this id. */
export function byId<T extends HTMLElement = HTMLElement>(id: string): T {
  const element = document.getElementById(id);
  if (element === null) throw new Error(`index.html has no element #${id}`);
  return element as T;
}

/** What the page remembers between visits; browsers may forbid that, and then it remembers nothing. */
export function remember(name: string, value: string): void {
  try {
    localStorage.setItem(`engine.${name}`, value);
  } catch {
    // storage is full or forbidden
  }
}

export function recall(name: string): string | null {
  try {
    return localStorage.getItem(`engine.${name}`);
  } catch {
    return null;
  }
}
