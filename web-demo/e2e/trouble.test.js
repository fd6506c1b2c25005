/** Films that don't play, and films that end. */
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
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

describe('a film that comes too slowly for one', () => {
  test('goes on for the others, who see who can’t keep up and why and don’t wait, and for that one when it comes again', async (t) => {
    const room = roomName('slow');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    await ann.film();
    const bob = await browser.person(t, { name: 'Bob' });
    const film = await readFile(new URL('../media/film.webm', import.meta.url));
    /** Requests for more than the beginning wait. @type {(() => void)[]} */
    const waiting = [];
    await bob.page.route('**/media/film.webm', async (route) => {
      const start = Number(/bytes=(\d+)/.exec(route.request().headers().range ?? '')?.[1] ?? 0);
      if (start > 0) await new Promise((resolve) => waiting.push(() => resolve(undefined)));
      const end = start > 0 ? film.length : Math.floor(film.length / 12);
      const headers = { 'content-type': 'video/webm', 'accept-ranges': 'bytes', 'content-range': `bytes ${start}-${end - 1}/${film.length}` };
      await route.fulfill({ status: 206, headers, body: film.subarray(start, end) }).catch(() => {}); // Not wanted any more.
    });
    await bob.enter({ origin: server.origin, room, transport: 'websocket' });
    await bob.film();
    await ann.click('#play');
    await ann.until('who can’t keep up, and why', () => document.querySelector('#cannot-play').innerText.includes('Bob can’t keep up: the film reaches them too slowly'), null, { within: 60_000 });
    await ann.until('it in the list', () => /Can’t keep up/.test([...document.querySelectorAll('#members .member')].find((row) => row.innerText.includes('Bob')).innerText));
    await bob.until('the reason', () => document.querySelector('#own-limit').innerText.startsWith('The film reaches you too slowly'));
    await ann.listen();
    await ann.page.evaluate(() => window.tandem.room.seek(10, { playing: true }));
    await ann.inStep();
    for (const { gate } of await ann.heard('SEEK_PAUSE')) assert.ok(!gate?.awaiting.some((user) => user !== gate.by), 'nobody waits for Bob');
    await bob.page.unroute('**/media/film.webm');
    waiting.forEach((go) => go());
    await allInStep([ann, bob]);
    await ann.until('no complaint', () => document.querySelector('#cannot-play').hidden, null, { within: 60_000 });
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
