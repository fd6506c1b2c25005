import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';

const browser = new Browser();

/** A browser's own console messages when a server is gone. */
const GONE = [/ERR_CONNECTION|ERR_QUIC|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE/, /WebSocket connection to .* failed/, /Failed to establish a connection to/];

/** Two people, playing, with enough of the film in their buffers. */
async function twoWatching(t, server) {
  const room = roomName('outage');
  const ann = await browser.join(t, { server, room, name: 'Ann', transport: 'webtransport', allowed: GONE });
  const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'websocket', allowed: GONE });
  const both = [ann, bob];
  await ann.click('#play');
  for (const tab of both) {
    await tab.until('half a minute of film in the buffer', () => {
      const { buffered, currentTime } = document.querySelector('#video');
      return buffered.length > 0 && buffered.end(buffered.length - 1) - currentTime > 30;
    });
  }
  await allInStep(both);
  await Promise.all(both.map((tab) => tab.listen()));
  return both;
}

async function assertNobodyLeft(both, before) {
  for (const [index, tab] of both.entries()) {
    const now = await tab.room();
    assert.equal(now.slot, before[index].slot, 'the same seat');
    assert.equal(now.userId, before[index].userId);
    assert.equal(now.host, before[index].host, 'the same host');
    assert.deepEqual(now.members.map(({ slot, userId }) => ({ slot, userId })), before[index].members.map(({ slot, userId }) => ({ slot, userId })));
    assert.deepEqual(await tab.heard('USER_LEFT'), [], 'nobody left');
    assert.deepEqual(await tab.heard('HOST_CHANGED'), []);
  }
}

/** Every page sees every member as connected. */
async function reunited(both) {
  for (const tab of both) {
    await tab.until('everybody being back', () => {
      const { room } = window.tandem;
      return room.state === 'joined' && room.members.length === 2 && room.members.every(({ connected }) => connected);
    });
  }
}

describe('when the server goes away', () => {
  test('killed and started again, it finds both in their seats and the film going on', async (t) => {
    const server = await Server.for(t);
    const both = await twoWatching(t, server);
    const before = await Promise.all(both.map((tab) => tab.room()));

    await server.stop('SIGKILL');
    for (const tab of both) {
      await tab.until('knowing that the line is down', () => window.tandem.room.state === 'reconnecting', null, { within: 40_000 });
      await tab.until('saying so', () => !document.querySelector('#banner-reconnecting').hidden);
    }
    for (const tab of both) {
      const position = await tab.page.evaluate(() => document.querySelector('#video').currentTime);
      await tab.until('the film going on meanwhile', (from) => document.querySelector('#video').currentTime > from + 1, position);
    }
    await server.start();
    await reunited(both);
    await allInStep(both);
    await assertNobodyLeft(both, before);
    for (const tab of both) await tab.until('no banner', () => document.querySelector('#banner-reconnecting').hidden);

    // And the room obeys as before.
    await both[0].click('#play');
    await allInStep(both, { playing: false });
    await both[0].click('#play');
    await allInStep(both);
  });

  test('stopped in order and started again, it finds both in their seats', async (t) => {
    const server = await Server.for(t);
    const both = await twoWatching(t, server);
    const before = await Promise.all(both.map((tab) => tab.room()));

    await server.stop('SIGTERM');
    for (const tab of both) assert.equal((await tab.heard('RECONNECT')).length, 1, 'they were told');
    await server.start();
    await reunited(both);
    await allInStep(both);
    await assertNobodyLeft(both, before);
  });
});

describe('when a tab is closed', () => {
  for (const transport of ['webtransport', 'websocket']) {
    test(`its ${transport} seat is shown as away at once`, async (t) => {
      const server = await Server.for(t);
      const room = roomName('away');
      const ann = await browser.join(t, { server, room, name: 'Ann' });
      const bob = await browser.join(t, { server, room, name: 'Bob', transport });
      await ann.until('Bob being there', () => document.querySelectorAll('#members .member:not(.away)').length === 2);
      await bob.close();
      // Far less than any idle timeout.
      await ann.until('Bob being away', () => {
        const row = document.querySelector('#members .member.away');
        return row?.innerText.includes('Bob') && /Away, place kept for \d+ s/.test(row.innerText);
      }, null, { within: 4000 });
    });
  }

  test('the others get a new host when its place is given up', async (t) => {
    const server = await Server.for(t, { MEMBER_GRACE_SECS: '1' });
    const room = roomName('heir');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const bob = await browser.join(t, { server, room, name: 'Bob' });
    await bob.listen();
    await ann.close();
    await bob.until('being host', () => window.tandem.room.self.isHost);
    await bob.until('being alone', () => document.querySelectorAll('#members .member').length === 1);
    assert.equal((await bob.heard('USER_LEFT'))[0].reason, 'lost');
  });

  test('on purpose, by the button, it leaves at once', async (t) => {
    const server = await Server.for(t);
    const room = roomName('leave');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    for (const transport of ['webtransport', 'websocket']) {
      const bob = await browser.join(t, { server, room, name: 'Bob', transport });
      await ann.until('Bob being there', () => window.tandem.room.members.length === 2);
      await bob.click('#leave-button');
      await bob.until('the first screen', () => !document.querySelector('#landing').hidden);
      await ann.until('Bob being gone', () => window.tandem.room.members.length === 1, null, { within: 4000 });
    }
  });
});
