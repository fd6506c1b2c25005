/** The others are told of one member's acts. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

async function annAndBob(t, about) {
  const room = roomName(about);
  const ann = await browser.join(t, { server, room, name: 'Ann' });
  const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'websocket' });
  await Promise.all([ann.film(), bob.film()]);
  return [ann, bob];
}

const toastSays = (words) => [...document.querySelectorAll('.toast')].some((toast) => toast.textContent.includes(words));
const chatSays = (words) => document.querySelector('#chat-list').textContent.includes(words);

describe('the others are told', () => {
  test('of another film, a PIN, the controls, and a call', async (t) => {
    const [ann, bob] = await annAndBob(t, 'news');
    for (const [act, said] of [
      [() => window.tandem.room.setUrl(`${location.origin}/media/film.webm?again`), 'Ann put on film.webm'],
      [() => window.tandem.room.setPin('4711'), 'Ann set a PIN for newcomers'],
      [() => window.tandem.room.setPin(null), 'Ann removed the PIN'],
      [() => window.tandem.room.setGuestControl(true), 'Ann gave everyone play, pause and seek'],
      [() => window.tandem.room.setGuestControl(false), 'Ann took play, pause and seek back'],
    ]) {
      await ann.page.evaluate(`(${act})()`);
      await bob.until(`a toast: ${said}`, toastSays, said);
      await bob.until(`a line: ${said}`, chatSays, said);
      await ann.until('its own line', chatSays, said.replace('Ann', 'You'));
      assert.equal(await ann.page.evaluate(toastSays, said), false, 'who did it knows');
    }
    await ann.click('#call-button');
    await bob.until('a toast of the call', toastSays, 'Ann started a call');
    await bob.until('a line of the call', chatSays, 'Ann is in the call');
  });

  test('why somebody is gone', async (t) => {
    const [ann, bob] = await annAndBob(t, 'gone');
    const cid = await browser.join(t, { server, room: await ann.page.evaluate(() => window.tandem.room.roomId), name: 'Cid' });
    await ann.click('[aria-label="Actions for Cid"]');
    await ann.page.getByRole('button', { name: 'Remove', exact: true }).click();
    await ann.click('#confirm-no');
    assert.equal((await bob.room()).members.length, 3, 'the host thought better of it');
    await ann.page.getByRole('button', { name: 'Remove', exact: true }).click();
    assert.match(await ann.text('#confirm-text'), /can’t come back from the same place/);
    await ann.click('#confirm-yes');
    await bob.until('the reason', chatSays, 'Cid was removed by the host');
    await cid.until('being told', () => document.querySelector('#closed-dialog').open);
  });
});

describe('a host', () => {
  test('that leaves and comes back is two lines', async (t) => {
    const [ann, bob] = await annAndBob(t, 'twolines');
    const lines = () => bob.page.evaluate(() => [...document.querySelectorAll('.chat-system')].map((line) => line.textContent));
    const before = (await lines()).length;
    await ann.click('#leave-button');
    await bob.until('hosting', chatSays, 'Ann left. You host the room now');
    await ann.click('#join-submit');
    await ann.joined();
    await bob.until('being told', chatSays, 'Ann joined and hosts the room now');
    assert.equal((await lines()).length, before + 2);
  });

  test('that is away is named to a newcomer, with the time until somebody else hosts', async (t) => {
    const room = roomName('away');
    const ann = await browser.join(t, { server, room, name: 'Ann', transport: 'websocket', allowed: [/ERR_|Failed|WebSocket/] });
    await ann.page.goto('about:blank');
    const bob = await browser.join(t, { server, room, name: 'Bob' });
    await bob.until('being told', () => /^Ann hosts, but is away\. Unless they come back within \d+ s, you host the room\.$/.test(document.querySelector('#authority').textContent));
  });
});

describe('a name that is written from right to left', () => {
  test('leaves what stands around it alone', async (t) => {
    const room = roomName('bidi');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    await browser.join(t, { server, room, name: 'אבי' });
    await ann.until('the line', chatSays, 'אבי joined');
    const isolated = await ann.page.evaluate(() => ['#chat-list', '#members'].map((list) =>
      [...document.querySelectorAll(`${list} bdi`)].some((name) => name.textContent === 'אבי' && getComputedStyle(name).unicodeBidi === 'isolate')));
    assert.deepEqual(isolated, [true, true]);
  });
});

describe('in full screen', () => {
  test('what is said appears over the film, C opens the chat, and it goes back to its place', async (t) => {
    const [ann, bob] = await annAndBob(t, 'full');
    assert.equal(await ann.page.locator('#film-chat').isVisible(), false);
    await ann.click('#fullscreen');
    await ann.until('full screen', () => document.fullscreenElement?.id === 'stage' && !document.querySelector('#film-chat').hidden);
    await bob.page.evaluate(() => window.tandem.room.chat('look!'));
    await ann.until('the line over the film', () => document.querySelector('#film-said').textContent.includes('look!'));
    await ann.page.keyboard.press('c');
    await ann.until('the chat beside the film', () => document.querySelector('#stage #chat-input')?.checkVisibility() && document.activeElement?.id === 'chat-input');
    await ann.page.keyboard.type('I see it');
    await ann.page.keyboard.press('Enter');
    await bob.until('the answer', chatSays, 'I see it');
    await ann.page.evaluate(() => document.exitFullscreen());
    await ann.until('the chat in its place', () => document.querySelector('.side #panel-chat') && !document.querySelector('#stage #panel-chat'));
    await bob.page.evaluate(() => window.tandem.room.chat('welcome back'));
    await ann.until('the line there', chatSays, 'welcome back');
  });
});

describe('the PIN dialog', () => {
  test('cancelled leaves the form as it was, without a complaint', async (t) => {
    const room = roomName('cancel');
    await browser.join(t, { server, room, name: 'Ann', pin: 'swordfish' });
    const bob = await browser.person(t, { name: 'Bob' });
    await bob.page.clock.install();
    await bob.enter({ origin: server.origin, room, wait: false });
    await bob.until('being asked', () => document.querySelector('#pin-dialog').open);
    await bob.page.clock.runFor(10_000);
    await bob.click('#pin-cancel');
    await bob.until('the form', () => document.querySelector('#join-submit').innerText === 'Join' && !document.querySelector('#join-submit').disabled);
    assert.equal(await bob.page.locator('#join-error').isVisible(), false);
  });
});
