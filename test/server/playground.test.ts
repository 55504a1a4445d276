import { existsSync } from 'node:fs';
import { type Browser, type BrowserContextOptions, chromium, type Page } from 'playwright-core';
import { afterAll, afterEach, beforeAll, describe, expect, it } from 'vitest';
import { playground } from '../../src/server/playground.js';
import { type FakeServer, fakeServer } from './fake-openai.js';
import { start } from './harness.js';

const executablePath = ['/usr/bin/chromium', '/usr/bin/chromium-browser', '/usr/bin/google-chrome'].find(existsSync);
const skipped =
  executablePath === undefined ? ' (skipped: no chromium, chromium-browser or google-chrome in /usr/bin)' : '';

describe('the playground as files', () => {
  let server: FakeServer;
  beforeAll(async () => {
    server = await fakeServer();
  });
  afterAll(() => server.close());

  it('comes with a policy that lets nothing foreign and nothing inline run', async () => {
    const response = await fetch(`${server.url}/`);
    expect(response.headers.get('content-type')).toBe('text/html; charset=utf-8');
    const policy = response.headers.get('content-security-policy')!.split('; ');
    expect(policy).toEqual(
      expect.arrayContaining(["default-src 'none'", "script-src 'self'", "frame-ancestors 'none'"]),
    );
    expect(policy.join()).not.toMatch(/unsafe|https?:|\*/);
    expect(response.headers.get('x-content-type-options')).toBe('nosniff');
    const html = await response.text();
    expect(html).not.toMatch(/(src|href)="(https?:)?\/\//);
    for (const [, path] of html.matchAll(/(?:src|href)="(playground\/[^"]+)"/g)) {
      expect((await fetch(`${server.url}/${path}`)).status, path).toBe(200);
    }
  });

  it('is not sent again while it has not changed', async () => {
    const etag = (await fetch(`${server.url}/playground/app.js`)).headers.get('etag')!;
    const again = (tag: string) => fetch(`${server.url}/playground/app.js`, { headers: { 'if-none-match': tag } });
    expect((await again(etag)).status).toBe(304);
    expect((await again(`"other", W/${etag}`)).status).toBe(304);
    expect((await again('"other"')).status).toBe(200);
  });

  it.each(['/playground/', '/playground/../package.json', '/playground/%2e%2e/index.js', '/playground/tsconfig.json'])(
    'has nothing at %s',
    async (path) => expect((await fetch(server.url + path)).status).toBe(404),
  );
});

describe.skipIf(skipped !== '')(`the playground in a browser${skipped}`, () => {
  let browser: Browser;
  const toClose: FakeServer[] = [];
  const problems: string[] = [];

  beforeAll(async () => {
    browser = await chromium.launch({ executablePath: executablePath!, args: ['--no-sandbox', '--disable-gpu'] });
  }, 60_000);
  afterAll(() => browser?.close());
  afterEach(async () => {
    for (const context of browser.contexts()) await context.close();
    for (const server of toClose.splice(0)) await server.close();
    expect(problems.splice(0)).toEqual([]);
  });

  /** The page on a fake server; its every error and every request to elsewhere fails the test. */
  async function open(options: Parameters<typeof fakeServer>[0] = {}, width = 1280): Promise<[Page, FakeServer]> {
    const server = await fakeServer(options);
    toClose.push(server);
    return [await visit(server.url, { viewport: { width, height: 800 } }), server];
  }

  async function visit(url: string, options: BrowserContextOptions): Promise<Page> {
    const context = await browser.newContext({ colorScheme: 'dark', ...options });
    const page = await context.newPage();
    page.on('pageerror', (error) => problems.push(error.message));
    page.on('console', (message) => {
      const expected = /status of 40[01]/.test(message.text()); // the browser reports what the server refuses
      if (['error', 'warning'].includes(message.type()) && !expected) problems.push(message.text());
    });
    page.on('request', (request) => {
      if (!request.url().startsWith(url)) problems.push(`asked ${request.url()}`);
    });
    await page.goto(url);
    return page;
  }

  async function say(page: Page, text: string): Promise<void> {
    await page.getByLabel('Message', { exact: true }).fill(text);
    await page.keyboard.press('Enter');
  }

  const finished = (page: Page) => page.locator('.answer:not(.running) .stats').last().waitFor();

  it('streams an answer, and tells how fast it was', async () => {
    const [page, server] = await open();
    await page.getByLabel('System prompt').fill('Be brief.');
    await page.getByLabel('Temperature').fill('0.5');
    await page.getByLabel('Stop strings').fill('END\n\\n\\n');
    await say(page, 'a story, please');
    await page.getByText('Once there was').waitFor(); // while it is being written
    await finished(page);
    expect(await page.locator('.tokens').textContent()).toContain('until the morning came and the boat was safe.');
    const stats = await page.locator('.stats').textContent();
    expect(stats).toMatch(/first token \d+ ms.*tokens\/s.*\d+ tokens.*prompt 21, 16 cached.*ended: stop/);
    const messages = [
      { role: 'system', content: 'Be brief.' },
      { role: 'user', content: 'a story, please' },
    ];
    const sampling = { temperature: 0.5, top_p: 0.95, min_p: 0.05, top_k: 40, max_tokens: 512, stop: ['END', '\n\n'] };
    const wanted = { logprobs: true, top_logprobs: 5, stream: true, stream_options: { include_usage: true } };
    expect(server.bodies).toEqual([{ model: 'fable-q8_0', messages, ...sampling, ...wanted }]);
    await say(page, 'and another');
    await page.locator('.answer').nth(1).waitFor();
    await finished(page);
    expect((server.bodies[1]!.messages as { role: string }[]).map(({ role }) => role)).toEqual([
      'system',
      'user',
      'assistant',
      'user',
    ]);
  });

  it('shows what else the model had in mind, to the pointer and to the keyboard', async () => {
    const [page] = await open();
    await say(page, 'a story');
    await finished(page);
    const panel = page.locator('#alternatives');
    await page.locator('.token', { hasText: 'lightho' }).hover();
    await panel.waitFor();
    expect(await panel.textContent()).toMatch(/bits of surprise.*␣lightho/);
    expect(await panel.locator('li').count()).toBe(5);
    expect(await panel.locator('li.chosen').count()).toBe(1);
    await page.mouse.move(0, 0);
    await panel.waitFor({ state: 'hidden' });
    await page.locator('.token').first().focus();
    await page.keyboard.press('ArrowRight');
    await panel.waitFor();
    expect(await panel.locator('li.chosen code').textContent()).toBe('␣there');
    expect(await page.locator(':focus').getAttribute('aria-describedby')).toBe('alternatives');
    expect(await page.locator('.token[tabindex="0"]').count()).toBe(1);
    await page.setViewportSize({ width: 1280, height: 330 });
    await page.keyboard.press('End'); // which scrolls
    await expect.poll(() => panel.locator('li.chosen code').textContent()).toBe('.');
    expect(await panel.isVisible()).toBe(true);
  });

  it('tints a token the more, the less it was expected', async () => {
    const [page] = await open();
    await say(page, 'a story');
    await finished(page);
    const tints = await page
      .locator('.token')
      .evaluateAll((tokens) =>
        tokens.map((token) => Number((token as unknown as { style: CSSStyle }).style.getPropertyValue('--surprise'))),
      );
    expect(Math.min(...tints)).toBeLessThan(0.05);
    expect(Math.max(...tints)).toBeGreaterThan(0.1);
    await page.getByLabel('Tint by surprise').uncheck();
    expect(await page.locator('.tinted').count()).toBe(0);
  });

  it('keeps markup in an answer text', async () => {
    const [page] = await open();
    await say(page, 'HTML');
    await finished(page);
    expect(await page.locator('.tokens').textContent()).toContain(
      '<img src="/x" onerror="document.title=1"> <b>bold</b>',
    );
    expect(await page.locator('.tokens :is(img, b, script)').count()).toBe(0);
    expect(await page.title()).toBe('engine playground');
  });

  it('shows a character that came in two tokens once, with both', async () => {
    const [page] = await open();
    await say(page, 'emoji');
    await finished(page);
    expect(await page.locator('.tokens').textContent()).toBe('A fox: 🦊 it is.');
    await page.locator('.token', { hasText: '🦊' }).hover();
    expect(await page.locator('#alternatives ol').count()).toBe(2);
  });

  it('stops at Esc, and the server sees that nobody reads on; then answers again', async () => {
    const [page, server] = await open();
    await say(page, 'endless');
    await page.getByText('Once there was').waitFor();
    await page.keyboard.press('Escape');
    await finished(page);
    expect(await page.locator('.stats').textContent()).toContain('ended: stopped');
    await expect.poll(server.aborted, { timeout: 10_000 }).toBe(1);
    await page.getByRole('button', { name: 'Regenerate' }).click();
    await page.getByRole('button', { name: 'Stop' }).click();
    await finished(page);
    expect(await page.locator('.answer').count()).toBe(1);
    expect(server.bodies).toHaveLength(2);
    await page.getByRole('button', { name: 'Clear' }).click();
    expect(await page.locator('.turn').count()).toBe(0);
    expect(await page.getByText('What should it say?').isVisible()).toBe(true);
  });

  it('offers to continue the text where the model has no chat template', async () => {
    const [page, server] = await open({ chatTemplate: false });
    await say(page, 'Once upon a time');
    await page.getByRole('button', { name: 'Continue the text instead' }).click();
    await finished(page);
    expect(await page.locator('.tokens').textContent()).toMatch(/^Once upon a timeOnce there was/);
    expect(server.bodies[1]).toMatchObject({ prompt: 'Once upon a time', logprobs: 5 });
    expect(await page.getByLabel('Completion').isChecked()).toBe(true);
    await page.locator('.token').nth(3).hover();
    expect(await page.locator('#alternatives li').count()).toBe(5);
  });

  it('keeps what there is of an answer that breaks off, and tries again', async () => {
    const [page, server] = await open();
    await say(page, 'a story that breaks off');
    await page.getByText('the lamp went out').waitFor();
    expect(await page.locator('.tokens').textContent()).toBe('Once there was a small lightho');
    expect(await page.locator('.stats').textContent()).toContain('ended: failed');
    await page.getByRole('button', { name: 'Try again' }).click();
    await expect.poll(() => server.bodies.length).toBe(2);
    expect(await page.locator('.answer').count()).toBe(1);
    await page.getByText('the lamp went out').waitFor();
  });

  it('asks for the key that a server wants, and keeps it for the tab', async () => {
    const [page] = await open({ key: 'secret' });
    await page.getByLabel('API key').fill('secret');
    await page.keyboard.press('Enter');
    await page.getByText('fable-q8_0').waitFor();
    await say(page, 'a story');
    await finished(page);
    await page.locator('.card', { hasText: 'Throughput' }).getByText(/^\d/).first().waitFor();
    await page.reload();
    await page.getByText('fable-q8_0').waitFor();
    expect(await page.evaluate('JSON.stringify(localStorage)')).not.toContain('secret');
  });

  it('works on our server, where the browser itself asks for the key', async () => {
    const { model, url } = await start({
      playground,
      apiKeys: [{ name: 'team', key: 'secret' }],
      metrics: async () => ({ contentType: 'text/plain', text: 'vllm:num_requests_running{model_name="m"} 7\n' }),
    });
    const page = await visit(url, { httpCredentials: { username: 'any', password: 'secret' } });
    await say(page, 'Hi');
    await finished(page);
    expect(await page.locator('.tokens').textContent()).toBe(model.reply);
    expect(await page.locator('.token').count()).toBe(model.reply.length);
    await page.locator('.token').first().hover();
    expect(await page.locator('#alternatives li.chosen code').textContent()).toBe('H');
    await page.locator('.card', { hasText: 'Requests' }).getByText('7', { exact: true }).waitFor();
  });

  it('shows live numbers', async () => {
    const [page] = await open();
    const card = (title: string) => page.locator('.card', { hasText: title });
    await expect
      .poll(() => card('Throughput').textContent(), { timeout: 10_000 })
      .toMatch(/\d\s*tokens\/s\+ .*of prompts/);
    expect(await card('Time to first token').textContent()).toMatch(/p50\d+ msp95\d+ msp99\d+ ms/);
    expect(await card('Inter-token latency').textContent()).toMatch(/p50\d.*ms/);
    expect(await card('KV cache').textContent()).toMatch(/\d+%/);
    expect(await card('Prefix hits').textContent()).toContain('78%');
    expect(await card('Requests').textContent()).toMatch(/\d+running\d+waiting/);
    expect(await card('Requests').locator('path.line').first().getAttribute('d')).toMatch(/^M/);
  });

  it('is dark or light as the system says, until the user says otherwise', async () => {
    const [page] = await open();
    const background = () => page.evaluate('getComputedStyle(document.body).backgroundColor');
    const dark = await background();
    await page.emulateMedia({ colorScheme: 'light' });
    const light = await background();
    expect(light).not.toBe(dark);
    await page.getByRole('button', { name: 'Switch between dark and light' }).click();
    expect(await background()).toBe(dark);
    await page.reload();
    expect(await background()).toBe(dark);
  });

  it('fits a narrow screen, with its panels over the conversation', async () => {
    const [page] = await open({}, 360);
    await say(page, 'a story');
    await finished(page);
    expect(await page.evaluate('document.documentElement.scrollWidth')).toBe(360);
    expect(await page.locator('#dashboard').isVisible()).toBe(false);
    await page.locator('#toggle-dashboard').click();
    await page.locator('#dashboard').waitFor();
    await page.keyboard.press('Escape');
    await page.locator('#dashboard').waitFor({ state: 'hidden' });
    expect(await page.locator(':focus').getAttribute('id')).toBe('toggle-dashboard');
  });
});

/** The part of the browser's CSSStyleDeclaration used here; Node's types have no DOM. */
interface CSSStyle {
  getPropertyValue(name: string): string;
}
