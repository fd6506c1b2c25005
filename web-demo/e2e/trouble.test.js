/** Films that don't play, and films that end. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

describe('a film that plays for one and not for another', () => {
  test('is said to both, and plays when its address works again', async (t) => {
    const room = roomName('trouble');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    await ann.film();
    const bob = await browser.person(t, { name: 'Bob', allowed: [/ERR_FAILED|Failed to load/] });
    await bob.page.route('**/media/film.webm', (route) => route.abort());
    await bob.enter({ origin: server.origin, room, transport: 'websocket' });
    await bob.until('the card', () => !document.querySelector('#stage-error').hidden && document.querySelector('#error-retry').checkVisibility());
    assert.equal(await bob.page.locator('#error-choose').isVisible(), false, 'a guest has no film to choose');
    await ann.until('the name of who can’t', () => /^Bob can’t play this film/.test(document.querySelector('#cannot-play').innerText));
    await ann.until('it in the list', () => /Can’t play the film/.test([...document.querySelectorAll('#members .member')].find((row) => row.innerText.includes('Bob')).innerText));
    await bob.page.unroute('**/media/film.webm');
    await bob.click('#error-retry');
    await bob.film();
    await bob.until('no card', () => document.querySelector('#stage-error').hidden);
    await ann.until('no complaint', () => document.querySelector('#cannot-play').hidden);
    await ann.click('#play');
    await allInStep([ann, bob]);
  });
});

describe('the end of a film', () => {
  test('is shown to all, and one press plays it again', async (t) => {
    const room = roomName('end');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'websocket' });
    await Promise.all([ann.film(), bob.film()]);
    await ann.page.evaluate(() => window.tandem.room.seek(document.querySelector('#video').duration - 1, { playing: true }));
    for (const tab of [ann, bob]) await tab.until('the end', () => !document.querySelector('#stage-end').hidden);
    assert.equal((await ann.room()).playing, false);
    assert.equal(await bob.page.locator('#end-again').isVisible(), false);
    assert.equal(await bob.text('#end-text'), 'Ann can play it again.');
    await ann.click('#end-again');
    const [{ position }] = await allInStep([ann, bob]);
    assert.ok(position < 30, 'from its beginning');
    for (const tab of [ann, bob]) await tab.until('no end', () => document.querySelector('#stage-end').hidden);
  });
});
