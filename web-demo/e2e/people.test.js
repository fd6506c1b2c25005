import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

describe('a PIN', () => {
  test('given by who opens the room is asked of who comes, and a wrong one is refused in words', async (t) => {
    const room = roomName('pin');
    const ann = await browser.person(t, { name: 'Ann' });
    await ann.page.goto(server.origin);
    await ann.page.fill('#join-name', 'Ann');
    await ann.page.fill('#join-room', room);
    await ann.page.fill('#join-pin', '4711');
    await ann.click('#join-submit');
    await ann.joined();
    await ann.until('the lock', () => !document.querySelector('#room-locked').hidden);

    const bob = await browser.person(t, { name: 'Bob' });
    await bob.enter({ origin: server.origin, room, wait: false });
    await bob.until('being asked', () => document.querySelector('#pin-dialog').open);
    assert.equal(await bob.page.locator('#pin-error').isVisible(), false, 'nothing is wrong yet');
    await bob.page.fill('#pin-input', '0000');
    await bob.page.keyboard.press('Enter');
    await bob.until('being told', () => document.querySelector('#pin-dialog').open && document.querySelector('#pin-error').innerText === 'That PIN is not right.');
    assert.equal((await ann.room()).members.length, 1, 'a refused JOIN binds nothing');
    await bob.page.fill('#pin-input', '4711');
    await bob.click('#pin-submit');
    await bob.joined();
    await ann.until('Bob being there', () => window.tandem.room.members.length === 2);
  });

  test('in the fragment of an invitation opens the door, and a wrong one there asks again', async (t) => {
    const room = roomName('invited');
    await browser.join(t, { server, room, name: 'Ann', pin: 'swordfish' });
    const bob = await browser.join(t, { server, room, name: 'Bob', pin: 'swordfish' });
    assert.equal((await bob.room()).members.length, 2);
    const cid = await browser.person(t, { name: 'Cid' });
    await cid.enter({ origin: server.origin, room, pin: 'herring', wait: false });
    await cid.until('being asked', () => document.querySelector('#pin-error').innerText === 'That PIN is not right.');
    await cid.click('#pin-cancel');
    await cid.until('the form again', () => document.querySelector('#join-submit').innerText === 'Join');
    assert.equal((await bob.room()).members.length, 2);
  });

  test('is the host’s to set: guests see no settings', async (t) => {
    const room = roomName('guests');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const bob = await browser.join(t, { server, room, name: 'Bob' });
    assert.deepEqual(await Promise.all([ann, bob].map((tab) => tab.page.locator('#host-room').isVisible())), [true, false]);
  });

  test('set in the settings locks the room, and removed it opens it', async (t) => {
    const room = roomName('settings');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    await ann.click('#host-room summary');
    await ann.page.fill('#settings-pin', 'open sesame');
    await ann.page.locator('.settings-pin').getByRole('button', { name: 'Set' }).click();
    await ann.until('the lock', () => !document.querySelector('#room-locked').hidden);
    const bob = await browser.person(t, { name: 'Bob' });
    await bob.enter({ origin: server.origin, room, wait: false });
    await bob.until('being asked', () => document.querySelector('#pin-dialog').open);
    await ann.page.locator('.settings-pin').getByRole('button', { name: 'Remove' }).click();
    await ann.until('no lock', () => document.querySelector('#room-locked').hidden);
    await bob.click('#pin-cancel');
    await bob.click('#join-submit');
    await bob.joined();
  });

  test('tried too often makes one wait, with the time shown', async (t) => {
    const room = roomName('throttle');
    await browser.join(t, { server, room, name: 'Ann', pin: 'swordfish' });
    const bob = await browser.person(t, { name: 'Bob' });
    await bob.enter({ origin: server.origin, room, wait: false });
    await bob.until('being asked', () => document.querySelector('#pin-dialog').open);
    await bob.until('being made to wait', async () => {
      const submit = document.querySelector('#pin-submit');
      if (/Wait \d+ s/.test(submit.innerText)) return true;
      if (!document.querySelector('#pin-dialog').open || submit.disabled) return false;
      document.querySelector('#pin-input').value = 'guess';
      submit.click();
      return false;
    });
    assert.equal(await bob.page.locator('#pin-submit').isDisabled(), true);
  });
});

describe('a name', () => {
  test('is shown as text, and can be changed', async (t) => {
    const room = roomName('name');
    const hostile = '<img src=x onerror=alert(1)>';
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const eve = await browser.join(t, { server, room, name: hostile });
    await ann.until('the name as text', (name) => document.querySelector('#members').innerText.includes(name), hostile);
    assert.equal(await ann.page.locator('#members img').count(), 0);
    await eve.click('[aria-label="Change your name"]');
    await eve.page.locator('#members input[name=name]').fill('Eve');
    await eve.page.keyboard.press('Enter');
    await ann.until('the new name', () => document.querySelector('#members').innerText.includes('Eve'));
  });
});

describe('two tabs of one browser', () => {
  test('are two people', async (t) => {
    const room = roomName('twins');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const popup = ann.page.context().waitForEvent('page');
    await ann.page.evaluate(() => void window.open(location.href));
    const twin = await popup;
    await twin.waitForFunction(() => window.tandem?.room.state === 'joined');
    await ann.until('two people', () => window.tandem.room.members.length === 2);
    assert.equal((await ann.room()).state, 'joined');
  });
});

describe('an invitation', () => {
  test('leads a newcomer to the very moment of the film', async (t) => {
    const ann = await browser.join(t, { server, room: roomName('link'), name: 'Ann', pin: 'swordfish' });
    await ann.film();
    await ann.page.evaluate(() => window.tandem.room.seek(20));
    await ann.click('#play');
    await ann.click('#invite-button');
    const link = await ann.until('a link', () => /^https?:/.test(document.querySelector('#invite-link').value) && document.querySelector('#invite-link').value);
    assert.ok(!link.replace(/#.*/, '').includes('swordfish'), 'a PIN is never in a path or a query');
    const bob = await browser.person(t, { name: 'Bob' });
    await bob.page.goto(link);
    await bob.page.fill('#join-name', 'Bob');
    await bob.click('#join-submit');
    await bob.joined();
    await allInStep([ann, bob]);
  });
});

describe('a large room', () => {
  test('reads in one line, over either transport, until it is small again', async (t) => {
    const large = await Server.for(t, { FULL_PRESENCE_MEMBERS: '2' });
    const room = roomName('large');
    const ann = await browser.join(t, { server: large, room, name: 'Ann' });
    const bob = await browser.join(t, { server: large, room, name: 'Bob', transport: 'websocket' });
    assert.equal(await ann.page.evaluate(() => document.querySelector('#people-digest').hidden), true);
    const cid = await browser.join(t, { server: large, room, name: 'Cid' });
    const all = [ann, bob, cid];
    await Promise.all(all.map((tab) => tab.film()));
    await ann.click('#play');
    await allInStep(all);
    for (const tab of all) {
      const text = await tab.until('the line', () => {
        const { hidden, textContent } = document.querySelector('#people-digest');
        return !hidden && /^3 watching · \d+ % in step/.test(textContent) && textContent;
      });
      assert.match(text, /^3 watching · \d+ % in step( · \d buffering)?$/);
    }
    await cid.page.evaluate(() => window.tandem.room.leave());
    await Promise.all([ann, bob].map((tab) => tab.until('no line, and each other’s figures', () => {
      const other = window.tandem.room.members.find(({ userId }) => userId !== window.tandem.room.self.userId);
      return document.querySelector('#people-digest').hidden && other.driftMs !== null;
    })));
  });
});
