import { expect, it } from 'vitest';
import { expectedTokens, fakeLoop } from './fake-session.js';
import { ids, prompt, request } from './requests.js';

it.each([
  { window: 5, most: 2 },
  { window: 16, most: 5 },
])('a window of $window tokens holds at most $most blocks, however long the answer', async ({ window, most }) => {
  const { loop, session } = fakeLoop({ numBlocks: 200, contextSize: 800 }, { window });
  let used = 0;
  session.beforeResult = () => {
    loop.checkIntegrity();
    used = Math.max(used, loop.stats().blocks.used);
  };
  expect(await ids(loop.submit(request(prompt(6), 700)))).toEqual(expectedTokens(prompt(6), 700));
  expect(used).toBe(most);
  // What has left the window was kept for others: the same prompt and answer are found again.
  const again = loop.submit(request([...prompt(6), ...expectedTokens(prompt(6), 700)], 3));
  expect(await ids(again)).toEqual(expectedTokens([...prompt(6), ...expectedTokens(prompt(6), 700)], 3));
  expect(again.cachedTokens).toBe(704);
});
