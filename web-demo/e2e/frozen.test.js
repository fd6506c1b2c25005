/** Pages that the browser freezes, or keeps in its back/forward cache, in the middle of the film. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { BackgroundTab } from './support/background.js';
import { Browser, roomName } from './support/browser.js';
import { openFirefox, waits } from './support/firefox.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';
import { assertUndisturbed, backInStep, seen, watch } from './support/watch.js';

const server = new Server({ RATE_LIMITS: 'off' });
before(() => server.start());
after(() => server.remove());
/** Turns the back/forward cache on, which Playwright turns off. */
const browser = new Browser([], { ignoreDefaultArgs: ['--disable-back-forward-cache'] });

const AWAY = [/WebTransport|WebSocket|favicon/];
const isAway = (away) => window.tandem.room.members.find(({ username }) => username === 'Ann')?.connected === !away;

for (const transport of ['websocket', 'webtransport']) {
  describe(`a page over ${transport}`, () => {
    async function watching(t) {
      const room = roomName('frozen');
      const ann = await browser.join(t, { server, room, name: 'Ann', transport, allowed: AWAY });
      const bob = await browser.join(t, { server, room, name: 'Bob', transport, allowed: AWAY });
      await Promise.all([ann, bob].map((tab) => tab.film()));
      await ann.click('#play');
      await allInStep([ann, bob]);
      await Promise.all([ann, bob].map((tab) => watch(tab)));
      return { ann, bob };
    }

    /** Ann's tab is behind another one. */
    async function inBackground(t) {
      const room = roomName('hidden');
      const bob = await browser.join(t, { server, room, name: 'Bob', transport, allowed: AWAY });
      const ann = await BackgroundTab.enter(t, { origin: server.origin, room, name: 'Ann', transport });
      await Promise.all([ann, bob].map((tab) => tab.film()));
      await bob.click('#play');
      await Promise.all([ann, bob].map((tab) => tab.inStep()));
      await Promise.all([ann, bob].map((tab) => watch(tab)));
      await ann.hide();
      return { ann, bob };
    }

    async function assertBack(t, ann, bob, since) {
      const took = await backInStep(ann, since);
      const { seeks, commands, states } = await seen(ann);
      t.diagnostic(`in step after ${took} ms; ${seeks} seeks, ${states.join(' ')}`);
      assert.deepEqual(commands, []);
      assert.ok(seeks <= 3, `${seeks} seeks`);
      await bob.until('Ann being back', isAway, false);
      await assertUndisturbed(bob);
    }

    test('that is frozen in the background is away at once, and in step soon when it is seen again', async (t) => {
      const { ann, bob } = await inBackground(t);
      await ann.freeze();
      await bob.until('Ann being away', isAway, true, { within: 5000 });
      const from = await bob.page.evaluate(() => window.tandem.room.positionNow());
      await bob.until('three seconds of the film', (to) => window.tandem.room.positionNow() > to, from + 3);
      await ann.unfreeze();
      const since = performance.now();
      await ann.show();
      await assertBack(t, ann, bob, since);
    });

    test('that is hidden stays a member, and is in step when it is seen again', async (t) => {
      const { ann, bob } = await inBackground(t);
      const from = await bob.page.evaluate(() => window.tandem.room.positionNow());
      await bob.until('ten seconds of the film', (to) => window.tandem.room.positionNow() > to, from + 10, { within: 30_000 });
      await bob.until('Ann being there', isAway, false);
      const since = performance.now();
      await ann.show();
      await assertBack(t, ann, bob, since);
      assert.equal((await seen(ann)).joins, 0);
    });

    test('that was in the back/forward cache is in step soon', async (t) => {
      const { ann, bob } = await watching(t);
      await ann.page.goto(`${server.origin}/health`);
      await bob.until('Ann being away', isAway, true, { within: 5000 });
      const since = performance.now();
      await ann.page.goBack({ waitUntil: 'commit' });
      await ann.until('being in the room', () => window.tandem?.room.state === 'joined');
      const kept = await ann.page.evaluate(() => window.seen !== undefined);
      t.diagnostic(`from the cache: ${kept}`);
      if (!kept) await watch(ann); // A page that the browser did not keep is loaded again.
      await assertBack(t, ann, bob, since);
    });
  });
}

describe('Firefox', () => {
  test('goes back to a page, out of its cache or anew: the same member, in step', async (t) => {
    // Puppeteer turns the cache off.
    const page = await openFirefox(t, { 'fission.bfcacheInParent': true, 'browser.sessionhistory.max_total_viewers': 8 });
    const room = roomName('ffcache');
    const bob = await browser.join(t, { server, room, name: 'Bob', allowed: AWAY });
    await bob.film();
    await page.goto(`${server.origin}/#${new URLSearchParams({ room, name: 'Ann', autojoin: '1' })}`);
    await waits(page, 'the film', () => window.tandem?.room.state === 'joined' && document.querySelector('#video').readyState >= 2);
    await bob.click('#play');
    await waits(page, 'playing', () => document.querySelector('#video').currentTime > 1);
    const userId = await page.evaluate(() => window.tandem.room.self.userId);
    await watch(bob);
    await page.evaluate(() => (window.keptInMemory = true));
    await page.goto(`${server.origin}/health`);
    await bob.until('Ann being away', isAway, true, { within: 10_000 });
    const since = performance.now();
    await page.goBack();
    await waits(page, 'being in step', () => {
      if (window.tandem?.room.state !== 'joined') return false;
      const { currentTime, paused } = document.querySelector('#video');
      return !paused && Math.abs(currentTime - window.tandem.room.positionNow()) < 0.25;
    });
    t.diagnostic(`in step after ${Math.round(performance.now() - since)} ms; from the cache: ${await page.evaluate(() => window.keptInMemory === true)}`);
    assert.equal(await page.evaluate(() => window.tandem.room.self.userId), userId);
    await assertUndisturbed(bob);
  });
});
