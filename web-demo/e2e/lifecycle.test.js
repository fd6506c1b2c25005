/** Suspended pages that come back, tabs of one visitor, guests that are removed: in a real Chromium. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { until } from './support/until.js';

const server = new Server({ RATE_LIMITS: 'off' });
before(() => server.start());
after(() => server.remove());
/** Turns the back/forward cache on, which Playwright turns off. */
const browser = new Browser([], { ignoreDefaultArgs: ['--disable-back-forward-cache'] });

for (const transport of ['websocket', 'webtransport']) {
  describe(`a page over ${transport}`, () => {
    test('that goes into the back/forward cache is disconnected at once, and is the same member when it comes back', async (t) => {
      const room = roomName('bfcache');
      const ann = await browser.join(t, { server, room, name: 'Ann', transport, allowed: [/WebTransport|WebSocket|favicon/] });
      const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'websocket' });
      const { userId } = await ann.room();
      await ann.page.evaluate(() => (window.keptInMemory = true));
      await ann.page.goto(`${server.origin}/health`);
      await bob.until('Ann being away', () => window.tandem.room.members.find(({ username }) => username === 'Ann')?.connected === false, undefined, { within: 5000 });
      await ann.page.goBack({ waitUntil: 'commit' });
      await ann.joined();
      await bob.until('Ann being back', () => window.tandem.room.members.find(({ username }) => username === 'Ann')?.connected === true);
      const back = await ann.room();
      assert.equal(back.userId, userId);
      assert.equal(back.isHost, true);
      t.diagnostic(`from the cache: ${await ann.page.evaluate(() => window.keptInMemory === true)}`);
    });

    test('that stands still without a word is disconnected although its network stack lives on, and resumes', async (t) => {
      const room = roomName('still');
      const apart = new Browser();
      const ann = await apart.join(t, { server, room, name: 'Ann', transport, allowed: [/WebTransport|WebSocket/] });
      const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'websocket' });
      const renderers = await apart.renderers();
      assert.notEqual(renderers.length, 0);
      const signal = (name) => renderers.forEach((pid) => process.kill(pid, name));
      signal('SIGSTOP');
      try {
        await bob.until('Ann being away', () => window.tandem.room.members.find(({ username }) => username === 'Ann')?.connected === false, undefined, { within: 30_000 });
      } finally {
        signal('SIGCONT');
      }
      await ann.joined();
      await bob.until('Ann being back', () => window.tandem.room.members.find(({ username }) => username === 'Ann')?.connected === true);
    });
  });
}

describe('two tabs of one visitor, with the ten lines of the README', () => {
  const open = (page, room) =>
    page.evaluate(async ({ room }) => {
      const { connect } = await import('/client/index.js');
      window.mine = connect({ server: location.origin, roomId: room, username: 'Ann' });
      await window.mine.ready;
      return window.mine.self.userId;
    }, { room });

  test('are two members, and each is the same one after a reload', async (t) => {
    const room = roomName('tabs');
    const ann = await browser.person(t, { name: 'Ann', allowed: [/favicon/] });
    const pages = [ann.page, await ann.page.context().newPage()];
    for (const page of pages) await page.goto(`${server.origin}/health`);
    const ids = [];
    for (const page of pages) ids.push(await open(page, room));
    assert.notEqual(ids[0], ids[1]);
    for (const i of [1, 0]) {
      await pages[i].reload();
      assert.equal(await open(pages[i], room), ids[i]);
    }
    const states = await Promise.all(pages.map((page) => page.evaluate(() => [window.mine.state, window.mine.members.length])));
    assert.deepEqual(states, [['joined', 2], ['joined', 2]]);
  });
});

describe('guests over WebTransport that the host removes', () => {
  for (const how of ['kick', 'ban']) {
    test(`${how}: none of 30 comes back by itself`, async (t) => {
      const { page } = await browser.person(t, { name: 'Ann', allowed: [/WebTransport/] });
      await page.goto(`${server.origin}/`);
      const ends = await page.evaluate(async ({ how, room }) => {
        const { connect } = await import('/client/index.js');
        const options = { server: location.origin, roomId: room, storage: null };
        const host = connect({ ...options, userId: 'host', transport: 'websocket' });
        await host.ready;
        const ends = [];
        for (let i = 0; i < 30; i++) {
          const guest = connect({ ...options, userId: `g${i}`, username: `g${i}`, transport: 'webtransport' });
          await guest.ready;
          const closed = new Promise((resolve) => guest.addEventListener('closed', ({ detail }) => resolve(detail.code)));
          await host[how](`g${i}`);
          ends.push(await closed);
        }
        // A guest that came back would be among the members.
        await new Promise((resolve) => setTimeout(resolve, 1500));
        ends.push(host.members.length);
        host.leave();
        return ends;
      }, { how, room: roomName('removed') });
      assert.deepEqual(ends, [...Array(30).fill(how === 'kick' ? 4006 : 4007), 1]);
    });
  }
});

describe('keys that the library keeps', () => {
  /** Runs in a page of one visitor. */
  const visit = (page, options) =>
    page.evaluate(async (options) => {
      const { connect } = await import('/client/index.js');
      window.mine?.leave();
      window.mine = connect({ server: location.origin, transport: 'webtransport', ...options });
      return window.mine.ready.then(
        () => ({ isHost: window.mine.self.isHost, owner: window.mine.owner, userId: window.mine.self.userId }),
        ({ code, retryAfterMs }) => ({ code, retryAfterMs }),
      );
    }, options);
  const person = async (t, name) => {
    const tab = await browser.person(t, { name, allowed: [/favicon|WebTransport/] });
    await tab.page.goto(`${server.origin}/health`);
    return tab.page;
  };

  test('make whoever made a room its host again, also in a room that a guest of the invitation has opened anew', async (t) => {
    const roomId = roomName('owned');
    const [ann, bob] = [await person(t, 'Ann'), await person(t, 'Bob')];
    const made = await visit(ann, { roomId });
    assert.equal(made.isHost, true);
    assert.match(made.owner, /^[\w-]{43}$/);
    await ann.evaluate(() => window.mine.leave());
    await until('the room being over', async () => (await fetch(`${server.origin}/api/short-id/${roomId}`)).status === 404);
    const opened = await visit(bob, { roomId, owner: made.owner });
    assert.deepEqual([opened.isHost, opened.owner], [true, made.owner], 'somebody has to be host meanwhile');
    await ann.reload();
    assert.equal((await visit(ann, { roomId, owner: made.owner })).isHost, true);
    await until('Bob being a guest', () => bob.evaluate(() => window.mine.self.isHost === false));
  });

  test('a guest that was kicked hears for how long it must stay away, under another name as well', async (t) => {
    const roomId = roomName('kicked');
    const [ann, bob] = [await person(t, 'Ann'), await person(t, 'Bob')];
    await visit(ann, { roomId, username: 'Ann' });
    const { userId } = await visit(bob, { roomId, username: 'Bob' });
    await ann.evaluate((userId) => window.mine.kick(userId), userId);
    await until('Bob being out', () => bob.evaluate(() => window.mine.state === 'closed'));
    const again = await visit(bob, { roomId, username: 'Somebody', userId: 'another' });
    assert.equal(again.code, 'KICKED');
    assert.ok(again.retryAfterMs > 0 && again.retryAfterMs <= 60_000, String(again.retryAfterMs));
  });
});

describe('a server that can’t be reached', () => {
  test('is reported by connect() within 10 s', async (t) => {
    const { page } = await browser.person(t, { name: 'Ann', allowed: [/ERR_|Failed to load|favicon/] });
    await page.goto(`${server.origin}/health`);
    const code = await page.evaluate(async () => {
      const { connect } = await import('/client/index.js');
      const room = connect({ server: 'https://127.0.0.1:1', roomId: 'nowhere', storage: null });
      return room.ready.then(() => 'joined', ({ code }) => code);
    });
    assert.equal(code, 'UNREACHABLE');
  });
});
