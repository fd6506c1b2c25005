/** Which pages may use a server. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { until } from './support/until.js';

/** Its ALLOWED_ORIGINS lists only another site. */
const server = new Server({ ALLOWED_ORIGINS: 'https://other.example' });
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

for (const transport of ['webtransport', 'websocket']) {
  test(`the server's own page is let in over ${transport}, whatever ALLOWED_ORIGINS lists`, async (t) => {
    const ann = await browser.join(t, { server, room: roomName('own'), name: 'Ann', transport });
    assert.equal((await ann.room()).transport, transport);
  });
}

test('a page of another origin is told why it is refused, and so is the log', async () => {
  const answer = await fetch(`${server.origin}/api/transports`, { headers: { origin: 'https://evil.example' } });
  assert.deepEqual([answer.status, (await answer.json()).code], [403, 'ORIGIN_REFUSED']);
  await until('the log', () => /ALLOWED_ORIGINS does not list/.test(server.log) && server.log.includes('https://evil.example'));
});
