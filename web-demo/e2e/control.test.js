import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';

const server = new Server({ KICK_COOLDOWN_SECS: '5' });
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

/** A key press by a person, and then an act of the element, as of a browser extension. */
async function byHand(tab, act) {
  await tab.page.locator('#stage').focus();
  await tab.page.keyboard.press('x');
  await tab.page.evaluate(`(${act})(document.querySelector('#video'))`);
}

const toastSays = (words) => [...document.querySelectorAll('.toast')].some((toast) => toast.innerText.includes(words));

describe('a guest without the controls', () => {
  test("can't play by key or button, and is told who can", async (t) => {
    const [ann, bob] = await annAndBob(t, 'keys');
    await bob.press('Space');
    await bob.until('being told', toastSays, 'Ann has the controls');
    await bob.click('#play');
    await bob.press('ArrowRight');
    assert.equal((await ann.see()).playback.playing, false);
    assert.equal((await bob.see()).paused, true);
  });

  test('who pauses, seeks or speeds up the player itself is put back to where the room is', async (t) => {
    const [ann, bob] = await annAndBob(t, 'native');
    await ann.click('#play');
    await allInStep([ann, bob]);
    const { playback } = await ann.see();
    for (const use of [(video) => video.pause(), (video) => (video.currentTime = 90), (video) => (video.playbackRate = 2)]) {
      await byHand(bob, use);
      await bob.until('being told', toastSays, 'Only the host can do that here');
      await allInStep([ann, bob]);
    }
    assert.deepEqual((await ann.see()).playback, playback, 'the room did not move');
  });

  test('who plays the player itself while the room stands still is stopped again', async (t) => {
    const [ann, bob] = await annAndBob(t, 'nativeplay');
    await bob.page.evaluate(() => document.querySelector('#video').play().catch(() => {}));
    await bob.until('standing again', () => document.querySelector('#video').paused && document.querySelector('#video').currentTime < 0.05);
    assert.equal((await ann.see()).playback.playing, false);
  });
});

describe('a guest with the controls', () => {
  test('moves the room by key, button, time line, and the player itself', async (t) => {
    const [ann, bob] = await annAndBob(t, 'guest');
    await ann.click('#host-room summary');
    await ann.page.getByRole('switch', { name: 'Guests can play, pause and seek' }).click();
    await bob.until('having the controls', () => window.tandem.room.self.canControl);

    await bob.press('Space');
    await allInStep([ann, bob]);
    await byHand(bob, (video) => video.pause());
    await allInStep([ann, bob], { playing: false });
    await byHand(bob, (video) => (video.currentTime = 50));
    await ann.until('being at 0:50', () => Math.abs(document.querySelector('#video').currentTime - 50) < 0.05);
    await byHand(bob, (video) => video.play());
    await allInStep([ann, bob]);
    await bob.press('ArrowRight');
    await ann.until('being five seconds on', () => document.querySelector('#video').currentTime > 55);
    await allInStep([ann, bob]);
    await byHand(bob, (video) => (video.playbackRate = 1.25));
    await allInStep([ann, bob], { rate: 1.25 });
    await bob.click('#play');
    await allInStep([ann, bob], { playing: false });
  });
});

describe('the host', () => {
  test('removes somebody, who is told, waits with the time shown, and may come back', async (t) => {
    const [ann, bob] = await annAndBob(t, 'kick');
    await ann.click('[aria-label="Actions for Bob"]');
    await ann.page.getByRole('button', { name: 'Remove', exact: true }).click();
    await ann.click('#confirm-yes');
    await bob.until('being told', () => document.querySelector('#closed-dialog').open && document.querySelector('#closed-title').innerText === 'The host removed you');
    await ann.until('being alone', () => document.querySelectorAll('#members .member').length === 1);
    const waits = (selector) => bob.until('being made to wait', (button) => /^Join again in \d+ s$/.test(document.querySelector(button).innerText) && document.querySelector(button).disabled, selector);
    await waits('#closed-again');
    await bob.page.reload();
    await waits('#join-submit');
    assert.match(await bob.text('#join-error'), /removed you a moment ago/);
    // A minute passes by Bob's clock, but less by the server's, which refuses with the rest of the time.
    await bob.page.clock.install();
    await bob.page.reload();
    await waits('#join-submit');
    await bob.page.clock.fastForward(61_000);
    await bob.until('the wait being over', () => !document.querySelector('#join-submit').disabled);
    assert.equal(await bob.page.locator('#join-error').isVisible(), false);
    await bob.until('being let in', () => {
      const button = document.querySelector('#join-submit');
      if (!button.disabled) button.click();
      return window.tandem?.room.state === 'joined';
    });
    await ann.until('being two', () => document.querySelectorAll('#members .member').length === 2);
  });

  test('bans somebody, who stays out until the ban is lifted', async (t) => {
    const [ann, bob] = await annAndBob(t, 'ban');
    const { room } = await bob.page.evaluate(() => ({ room: window.tandem.room.roomId }));
    await ann.click('[aria-label="Actions for Bob"]');
    await ann.page.getByRole('button', { name: 'Ban', exact: true }).click();
    await ann.click('#confirm-yes');
    await bob.until('being told', () => document.querySelector('#closed-title').innerText === 'The host banned you');
    await bob.click('#closed-home');
    await bob.page.goto('about:blank');
    await bob.enter({ origin: server.origin, room, wait: false });
    await bob.until('being refused', () => document.querySelector('#join-error').dataset.code === 'USER_BANNED');
    await ann.click('#host-room summary');
    await ann.page.getByRole('button', { name: /Lift the ban on Bob/ }).click();
    await ann.until('the ban being lifted', () => window.tandem.room.banned.length === 0);
    await bob.click('#join-submit');
    await bob.joined();
  });

  test('hands the room over', async (t) => {
    const [ann, bob] = await annAndBob(t, 'transfer');
    await ann.click('[aria-label="Actions for Bob"]');
    await ann.page.getByRole('button', { name: 'Make host' }).click();
    await bob.until('being host', () => window.tandem.room.self.isHost && window.tandem.room.self.canControl);
    await bob.click('#play');
    await allInStep([ann, bob]);
    await ann.press('Space');
    await ann.until('being told', toastSays, 'Bob has the controls');
  });
});
