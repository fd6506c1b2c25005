/** A room that is full: who comes then is audience, sees the film in step, and may ask the host for a place. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';

const server = new Server({ MAX_ROOM_MEMBERS: '2' });
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

const watches = () => !document.querySelector('#banner-audience').hidden;

describe('a room that is full', () => {
  for (const transport of ['webtransport', 'websocket']) {
    test(`lets newcomers watch in step, over ${transport}, and a viewer becomes a member when the host lets it in`, async (t) => {
      const room = roomName(`audience-${transport}`);
      const ann = await browser.join(t, { server, room, name: 'Ann' });
      const cid = await browser.join(t, { server, room, name: 'Cid', transport });
      const bob = await browser.join(t, { server, room, name: 'Bob', transport });
      await bob.until('being told', watches);
      assert.equal(await bob.page.locator('#chat-form').isVisible(), false);
      assert.equal(await bob.page.locator('#call-button').isVisible(), false);
      assert.equal((await ann.room()).members.length, 2);
      await ann.until('the number of who watch', () => document.querySelector('#audience-count').innerText === '1 in the audience');

      await Promise.all([ann, bob].map((tab) => tab.film()));
      await ann.click('#play');
      await allInStep([ann, cid, bob]);
      await bob.press('k');
      await allInStep([ann, cid, bob]);

      await bob.click('#raise-hand');
      await bob.until('the hand being up', () => document.querySelector('#raise-hand').innerText === 'Lower hand');
      const row = ann.page.locator('#hands .hand', { hasText: 'Bob' });
      await row.getByRole('button', { name: 'Not now' }).click();
      await bob.until('the hand being down', () => document.querySelector('#raise-hand').innerText === 'Raise hand');
      await ann.until('an empty bar', () => document.querySelector('#hands').hidden);

      await cid.page.evaluate(() => window.tandem.room.leave());
      await ann.until('a free place', () => window.tandem.room.members.length === 1);
      await bob.until('being heard again', async () => {
        const button = document.querySelector('#raise-hand');
        if (button.innerText === 'Raise hand') button.click();
        return button.innerText === 'Lower hand';
      });
      await row.getByRole('button', { name: 'Let Bob in' }).click();
      await bob.until('being a member', () => window.tandem.room.role === 'member' && document.querySelector('#banner-audience').hidden);
      assert.equal(await bob.page.locator('#call-button').isVisible(), true);
      await bob.page.evaluate(() => window.tandem.room.chat('Thank you'));
      await ann.until('the line', () => document.querySelector('#chat-list').textContent.includes('Thank you'));
      await allInStep([ann, bob]);
      await bob.page.reload();
      await bob.joined();
      assert.equal((await bob.room()).members.length, 2, 'it is back in its place');
    });
  }

  test('sends its audience home when everybody has left', async (t) => {
    const room = roomName('over');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const eve = await browser.person(t, { name: 'Eve' });
    await eve.enter({ origin: server.origin, room });
    const zoe = await browser.join(t, { server, room, name: 'Zoe' });
    await zoe.until('being told', watches);
    await ann.page.evaluate(() => window.tandem.room.leave());
    await eve.page.evaluate(() => window.tandem.room.leave());
    await zoe.until('the end', () => document.querySelector('#closed-title').innerText === 'The room is over');
  });
});
