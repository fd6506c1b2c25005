/** What somebody sees who comes later. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

for (const transport of ['webtransport', 'websocket']) {
  test(`the chat's last lines are there for who comes later over ${transport}, above the own arrival, and are not news`, async (t) => {
    const room = roomName('late');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    await ann.page.evaluate(async () => {
      for (const line of ['first', 'second', 'third']) await window.tandem.room.chat(line);
    });
    const context = { viewport: { width: 390, height: 844 } };
    const bob = await browser.join(t, { server, room, name: 'Bob', transport, context });
    await bob.until('the lines in their order', () => /first.*second.*third.*You joined$/s.test(document.querySelector('#chat-list').innerText.trim()));
    assert.equal(await bob.page.locator('#chat-unread').isVisible(), false);
    await ann.page.evaluate(() => window.tandem.room.chat('fourth'));
    await bob.until('a new line at the end', () => /third.*You joined.*fourth$/s.test(document.querySelector('#chat-list').innerText.trim()));
    // Seen once, whatever the line does.
    await bob.page.evaluate(() => window.tandem.room.send({ type: 'REQUEST_SYNC' }));
    await ann.page.evaluate(() => window.tandem.room.chat('fifth'));
    await bob.until('the next line', () => /fifth/.test(document.querySelector('#chat-list').innerText));
    assert.equal((await bob.page.locator('.chat-text', { hasText: 'second' }).count()), 1);
  });
}

test('a room may be called anything, and its link leads there', async (t) => {
  const ann = await browser.person(t, { name: 'Ann' });
  await ann.page.goto(server.origin);
  await ann.page.fill('#join-name', 'Ann');
  await ann.page.fill('#join-room', 'a/b');
  await ann.click('#join-submit');
  assert.match(await ann.text('#join-error'), /can’t have any of/);
  const name = `Кино 🍿 ${roomName('night')}`;
  await ann.page.fill('#join-room', `  ${name} `);
  await ann.click('#join-submit');
  await ann.joined();
  assert.equal(await ann.text('#room-name'), name);
  await ann.click('#invite-button');
  const link = await ann.until('a link', () => document.querySelector('#invite-dialog').open && document.querySelector('#invite-link').value);
  const bob = await browser.person(t, { name: 'Bob' });
  await bob.page.goto(link);
  assert.equal(await bob.text('#join-title'), `Join ${name}`);
  await bob.page.fill('#join-name', 'Bob');
  await bob.click('#join-submit');
  await bob.joined();
  await ann.until('being two', () => window.tandem.room.members.length === 2);
  await bob.page.reload();
  await bob.joined();
  assert.equal((await bob.room()).members.length, 2, 'the same seat after a reload');
});
