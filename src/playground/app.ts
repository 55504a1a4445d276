import { Alternatives } from './alternatives.js';
import { Api, ApiError } from './api.js';
import { Chat } from './chat.js';
import { Controls } from './controls.js';
import { Dashboard } from './dashboard.js';
import { byId, create } from './dom.js';
import { closeOverlay, setUpPanels, setUpTheme } from './panels.js';

/** Milliseconds between questions whether the model is loaded. */
const LOADING_INTERVAL = 1000;

const examples: readonly string[] = [
  'Tell me a story about a lighthouse',
  'Why is the sky blue?',
  'Write a haiku about rain',
];

const message = byId<HTMLTextAreaElement>('message');
const send = byId<HTMLButtonElement>('send');
const stop = byId<HTMLButtonElement>('stop');
const clear = byId<HTMLButtonElement>('clear');

const api = new Api();
const dashboard = new Dashboard(api, byId('dashboard'));
const alternatives = new Alternatives(byId('alternatives'), byId('log'));
let modelName = '';

const controls = new Controls(byId<HTMLFormElement>('controls'), () => {
  byId('log').classList.toggle('tinted', byId<HTMLInputElement>('tint').checked);
  const chatting = byId<HTMLInputElement>('mode-chat').checked;
  message.placeholder = chatting ? 'Write a message' : 'Write the beginning of a text';
});

const chat = new Chat(api, controls, {
  log: byId('log'),
  alternatives,
  model: nameOfModel,
  askForKey,
  onState(running, words) {
    byId('log').setAttribute('aria-busy', `${running}`); // read out when it is complete
    if (words !== 'retry') byId('status').textContent = words;
    send.hidden = running;
    stop.hidden = !running;
    update();
  },
});

setUpTheme();
setUpPanels(() => dashboard.refresh());
setUpComposer();
update();
void connect();

/** Waits for the model, and for a key if the server wants one. */
async function connect(): Promise<void> {
  const box = byId('model');
  const name = byId('model-name');
  for (let problem = await api.problem(); problem !== null; problem = await api.problem()) {
    const isLoading = problem instanceof ApiError && problem.code === 'model_loading';
    box.dataset.state = isLoading ? 'loading' : 'failed';
    name.textContent = isLoading ? 'loading the model…' : problem.message;
    box.title = isLoading ? '' : problem.message; // where it is cut off
    await new Promise((resolve) => setTimeout(resolve, LOADING_INTERVAL));
  }
  box.title = '';
  try {
    await nameOfModel();
  } catch (error) {
    name.textContent = error instanceof ApiError && error.status === 401 ? 'needs an API key' : 'not available';
    box.dataset.state = 'failed';
    if (error instanceof ApiError && error.status === 401 && (await askForKey())) await connect();
  }
}

async function nameOfModel(): Promise<string> {
  if (modelName === '') {
    modelName = await api.model();
    byId('model-name').textContent = modelName;
    byId('model').dataset.state = 'ready';
  }
  return modelName;
}

function setUpComposer(): void {
  const say = (text: string): void => {
    if (text.trim() === '' || chat.isRunning) return;
    message.value = '';
    void chat.send(text);
    update();
  };
  byId('composer').addEventListener('submit', (event) => {
    event.preventDefault();
    say(message.value);
  });
  message.addEventListener('input', update);
  message.addEventListener('keydown', (event) => {
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    say(message.value);
  });
  stop.addEventListener('click', () => chat.stop());
  clear.addEventListener('click', () => {
    chat.clear();
    message.focus();
  });
  document.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape' || byId<HTMLDialogElement>('key-dialog').open) return;
    alternatives.hide();
    if (!closeOverlay()) chat.stop();
  });
  for (const text of examples) {
    const button = create('button', { type: 'button' }, text);
    button.addEventListener('click', () => say(text));
    byId('examples').append(button);
  }
  message.focus();
}

/** Whatever depends on what was written and on whether an answer is being written. */
function update(): void {
  send.disabled = message.value.trim() === '';
  clear.disabled = chat.isEmpty;
  byId('welcome').hidden = !chat.isEmpty;
  message.style.height = 'auto';
  message.style.height = `${message.scrollHeight}px`;
}

/** Opens the dialog for the key; resolves when it is closed, with whether a key was given. */
function askForKey(): Promise<boolean> {
  const dialog = byId<HTMLDialogElement>('key-dialog');
  const input = byId<HTMLInputElement>('key');
  const finished = new AbortController();
  return new Promise((resolve) => {
    const finish = (given: boolean): void => {
      finished.abort();
      input.value = '';
      dialog.close();
      if (given) dashboard.refresh();
      resolve(given);
    };
    const { signal } = finished;
    dialog.addEventListener('close', () => finish(false), { signal });
    byId('key-cancel').addEventListener('click', () => finish(false), { signal });
    byId('key-form').addEventListener(
      'submit',
      (event) => {
        event.preventDefault();
        api.key = input.value;
        finish(true);
      },
      { signal },
    );
    if (!dialog.open) dialog.showModal();
  });
}
