import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { until } from './support/until.js';

const server = new Server();
/** Bound to all interfaces, as for friends in the same network. */
const open = new Server({ HOST: '0.0.0.0' });
before(() => Promise.all([server.start(), open.start()]));
after(() => Promise.all([server.remove(), open.remove()]));
const browser = new Browser();

const invitation = (tab) => tab.until('a link', () => {
  const dialog = document.querySelector('#invite-dialog');
  return dialog.open && /#room=/.test(document.querySelector('#invite-link').value) && document.querySelector('#invite-link').value;
});

describe('an invitation', () => {
  test('made in the morning opens the room in the evening, when everybody has left', async (t) => {
    const ann = await browser.join(t, { server, room: roomName('morning'), name: 'Ann' });
    await ann.click('#invite-button');
    const link = await invitation(ann);
    assert.match(link, /\/#room=morning-/, 'the page itself, not a short link that runs out');
    await ann.page.keyboard.press('Escape');
    await ann.click('#leave-button');
    const bob = await browser.person(t, { name: 'Bob' });
    await bob.page.goto(link);
    await bob.page.fill('#join-name', 'Bob');
    await bob.click('#join-submit');
    await bob.joined();
  });

  test('keeps the room with whoever made it, though somebody else opens it again', async (t) => {
    const ann = await browser.join(t, { server, room: roomName('owned'), name: 'Ann' });
    await ann.click('#invite-button');
    const link = await invitation(ann);
    assert.match(link, /&owner=[A-Za-z0-9_-]{43}$/);
    const key = await ann.page.evaluate(() => JSON.parse(Object.entries(localStorage).find(([name]) => name.includes(':host:'))[1]));
    assert.ok(key.length >= 22 && !link.includes(key), 'the key itself stays in the browser');
    await ann.page.keyboard.press('Escape');
    await ann.click('#leave-button');
    const bob = await browser.person(t, { name: 'Bob' });
    await bob.page.goto(link);
    await bob.page.fill('#join-name', 'Bob');
    await bob.click('#join-submit');
    await bob.joined();
    assert.equal((await bob.room()).isHost, true, 'somebody must have the controls meanwhile');
    const cid = await browser.person(t, { name: 'Cid' });
    await bob.click('#invite-button');
    await cid.page.goto(await invitation(bob));
    assert.ok(cid.page.url().endsWith(link.slice(link.indexOf('#'))), 'whoever invites passes the same owner on');
    await ann.page.goto('about:blank');
    await ann.page.goto(link);
    await ann.page.fill('#join-name', 'Ann');
    await ann.click('#join-submit');
    await ann.joined();
    await ann.until('being host', () => window.tandem.room.self.isHost);
    await bob.until('being told', () => document.querySelector('#chat-list').textContent.includes('Ann joined and hosts the room now'));
  });

  test('that is a short link of a room that is over leads to the page with the way on', async (t) => {
    const room = roomName('short');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const { shortUrl } = await (await fetch(`${server.origin}/api/short-id/${room}`)).json();
    await ann.click('#leave-button');
    await ann.until('being out', () => window.tandem === undefined);
    const bob = await browser.person(t, { name: 'Bob' });
    await until('the room being over', async () => (await fetch(`${server.origin}/api/short-id/${room}`)).status === 404);
    await bob.page.goto(shortUrl);
    await bob.until('being told', () => document.querySelector('#join-title').innerText === 'This room is over');
    await bob.page.fill('#join-name', 'Bob');
    assert.equal(await bob.text('#join-submit'), 'Open it again');
    await bob.click('#join-submit');
    await bob.joined();
    assert.equal(await bob.page.evaluate(() => window.tandem.room.roomId), room);
  });

  test('that was never made leads to a page with a way to a room', async (t) => {
    const ann = await browser.person(t, { name: 'Ann', allowed: [/404/] });
    const answer = await ann.page.goto(`${server.origin}/room/zzzzzzz`);
    assert.equal(answer.status(), 404);
    await ann.page.getByRole('link', { name: 'Open a room' }).click();
    await ann.until('the first screen', () => document.querySelector('#landing')?.hidden === false);
  });

  test('from localhost says that it works on this machine only', async (t) => {
    const ann = await browser.join(t, { server, room: roomName('alone'), name: 'Ann' });
    await ann.click('#invite-button');
    await ann.until('the warning', () => /this machine only/.test(document.querySelector('#invite-where').innerText));
    assert.match(await invitation(ann), /^http:\/\/localhost:/);
  });

  test('from localhost names the address that others can use, where there is one', async (t) => {
    const ann = await browser.join(t, { server: open, room: roomName('lan'), name: 'Ann' });
    const { origins } = await (await fetch(`${open.origin}/api/addresses`)).json();
    await ann.click('#invite-button');
    if (origins.length === 0) return t.diagnostic('this machine has no address but loopback');
    await ann.until('the link of the machine', ([origin]) => document.querySelector('#invite-link').value.startsWith(`${origin}/#room=`), [origins[0]]);
    assert.match(await ann.text('#invite-where'), /names this machine’s address/);
  });
});

describe('the test film', () => {
  test('is loaded by each guest from the address that the guest came by', async (t) => {
    const room = roomName('relative');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    await ann.film();
    const origin = `http://127.0.0.1:${server.port}`;
    const bob = await browser.join(t, { server, origin, room, name: 'Bob', transport: 'websocket' });
    await bob.film();
    assert.equal(await bob.page.evaluate(() => document.querySelector('#video').currentSrc), `${origin}/media/film.webm`);
    assert.equal(await ann.page.evaluate(() => document.querySelector('#video').currentSrc), `${server.origin}/media/film.webm`);
    assert.equal(await bob.text('#now-title'), 'The test film');
  });
});
