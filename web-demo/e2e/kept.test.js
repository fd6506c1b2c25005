/** All members are away for longer than the grace time. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { until } from './support/until.js';

const server = new Server({ MEMBER_GRACE_SECS: '1' });
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

test('a room whose members were all lost is kept, and who comes back is told where it stands', async (t) => {
  const room = roomName('kept');
  const ann = await browser.join(t, { server, room, name: 'Ann', transport: 'websocket', allowed: [/ERR_|Failed|WebSocket/] });
  await ann.film();
  await ann.page.evaluate(() => window.tandem.room.seek(40, { playing: true }));
  await ann.inStep();
  const { epoch, userId } = await ann.room();
  const token = await ann.page.evaluate((id) => JSON.parse(Object.entries(localStorage).find(([name]) => name.includes(':member:') && name.endsWith(id))[1]).resumeToken, userId);
  await ann.page.goto('about:blank');
  await until('the room standing still', async () => {
    const history = await fetch(`${server.origin}/api/rooms/${room}/events?userId=${userId}`, { headers: { authorization: `Bearer ${token}` } });
    // Not in the text of the whole page: the room's own name has the word in it.
    return (await history.json()).events.some((event) => event.kind === 'room_kept');
  });
  const bob = await browser.person(t, { name: 'Bob' });
  await bob.page.goto(`${server.origin}/#room=${room}`);
  await bob.page.fill('#join-name', 'Bob');
  await bob.click('#join-submit');
  await bob.joined();
  await bob.until('being told', () => /The room was kept while everybody was away. It is paused at 0:4\d/.test(document.querySelector('#chat-list').textContent));
  const seen = await bob.see();
  assert.equal(seen.epoch, epoch, 'the same room');
  assert.equal(seen.playback.playing, false);
});
