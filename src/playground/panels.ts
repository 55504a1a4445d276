import { byId, recall, remember } from './dom.js';

const PANELS = ['settings', 'dashboard'] as const;
/** Panels lie beside the conversation from here on, and over it below. The same width is in style.css. */
const beside = matchMedia('(min-width: 1080px)');

/** The two drawers. On a narrow screen at most one is open, and none at first. */
export function setUpPanels(onChange: () => void): void {
  const open = (name: (typeof PANELS)[number], shown: boolean): void => {
    byId(name).hidden = !shown;
    byId(`toggle-${name}`).setAttribute('aria-expanded', `${shown}`);
  };
  const arrange = (): void => {
    for (const name of PANELS) open(name, beside.matches && recall(name) !== 'closed');
    onChange();
  };
  for (const name of PANELS) {
    byId(`toggle-${name}`).addEventListener('click', () => {
      const shown = byId(name).hidden !== false;
      if (!beside.matches) for (const other of PANELS) open(other, false);
      else remember(name, shown ? 'open' : 'closed');
      open(name, shown);
      onChange();
    });
  }
  beside.addEventListener('change', arrange);
  arrange();
}

/** Closes what lies over the conversation; false if nothing does. */
export function closeOverlay(): boolean {
  const name = beside.matches ? undefined : PANELS.find((panel) => !byId(panel).hidden);
  if (name === undefined) return false;
  byId(`toggle-${name}`).click();
  byId(`toggle-${name}`).focus();
  return true;
}

/** Dark or light: the system's choice until the user makes one. */
export function setUpTheme(): void {
  const root = document.documentElement;
  const saved = recall('theme');
  if (saved === 'dark' || saved === 'light') root.dataset.theme = saved;
  byId('toggle-theme').addEventListener('click', () => {
    const shown = root.dataset.theme ?? (matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light');
    root.dataset.theme = shown === 'dark' ? 'light' : 'dark';
    remember('theme', root.dataset.theme);
  });
}
