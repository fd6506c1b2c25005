/** One tab that leaves and enters again. */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

test('leaving and entering again, many times, always shows the film and leaves nothing behind', async (t) => {
  const ann = await browser.join(t, { server, room: roomName('again'), name: 'Ann' });
  const room = await ann.page.evaluate(() => window.tandem.room.roomId);
  let current = room;
  for (let round = 0; round < 8; round++) {
    await ann.film();
    if (round % 2) await ann.click('#play');
    await ann.page.evaluate(() => window.tandem.room.chat('once'));
    await ann.until('the line, once', () => [...document.querySelectorAll('.chat-text')].filter((line) => line.textContent === 'once').length === 1);
    assert.equal(await ann.page.locator('#members .member').count(), 1);
    await ann.click('#leave-button');
    await ann.until('the first screen', () => !document.querySelector('#landing').hidden && window.tandem === undefined);
    for (const id of ['stage-end', 'film-chat', 'cannot-play', 'own-limit']) {
      assert.equal(await ann.page.evaluate((name) => document.getElementById(name).hidden, id), true, id);
    }
    assert.equal(await ann.page.inputValue('#join-room'), current, 'the form leads back to where she was');
    const next = round % 3 ? room : `${room}-${round}`;
    if (next !== current) await ann.page.fill('#join-room', next);
    current = next;
    await ann.click('#join-submit');
    await ann.joined();
  }
});
