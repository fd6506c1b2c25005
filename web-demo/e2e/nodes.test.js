import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Balancer, Stores, twoNodes } from './support/cluster.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';
import { until } from './support/until.js';

const browser = new Browser();

/** A browser's own console messages when a server is gone. */
const GONE = [/ERR_CONNECTION|ERR_QUIC|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE/, /WebSocket connection to .* failed/, /Failed to establish a connection to/];

const chatSays = (text) => document.querySelector('#chat-list').innerText.includes(text);

async function say(tab, text) {
  await tab.choose('chat');
  await tab.page.fill('#chat-input', text);
  await tab.page.press('#chat-input', 'Enter');
}

async function membersOf(node) {
  const status = await (await fetch(`${node.origin}/status`)).json();
  return { sessions: status.localConnections, members: status.members };
}

for (const transport of ['websocket', 'webtransport']) {
  describe(`two tabs on two nodes, over ${transport}`, () => {
    test('are in step and chat, and when one node is killed its tab goes on at the other', async (t) => {
      const stores = await Stores.for(t);
      const [one, two] = await Promise.all(['one', 'two'].map((name) => Server.for(t, { ...stores.env, NODE_ID: name })));
      const balancer = await Balancer.for(t, [one, two]);
      const room = roomName('nodes');
      const ann = await browser.join(t, { server: balancer, room, name: 'Ann', transport, allowed: GONE });
      balancer.preferred = two;
      const bob = await browser.join(t, { server: balancer, room, name: 'Bob', transport, allowed: GONE });
      const both = [ann, bob];
      assert.deepEqual(await membersOf(one), { sessions: 1, members: 2 }, 'Ann is here');
      assert.deepEqual(await membersOf(two), { sessions: 1, members: 2 }, 'Bob is there');

      await Promise.all(both.map((tab) => tab.film()));
      await ann.click('#play');
      await allInStep(both);
      await say(ann, 'from the first node');
      await say(bob, 'from the second node');
      for (const tab of both) {
        for (const text of ['from the first node', 'from the second node']) await tab.until('both lines', chatSays, text);
      }

      const before = await Promise.all(both.map((tab) => tab.room()));
      await Promise.all(both.map((tab) => tab.listen()));
      const killedAt = performance.now();
      await two.stop('SIGKILL');
      await until('Bob being at the other node', async () => (await membersOf(one)).sessions === 2, { within: 40_000 });
      t.diagnostic(`there after ${Math.round(performance.now() - killedAt)} ms`);
      for (const tab of both) {
        await tab.until('everybody being back', () => {
          const { room: now } = window.tandem;
          return now.state === 'joined' && now.members.length === 2 && now.members.every(({ connected }) => connected);
        }, null, { within: 60_000 });
      }
      await allInStep(both);
      for (const [index, tab] of both.entries()) {
        const now = await tab.room();
        assert.equal(now.slot, before[index].slot, 'the same seat');
        assert.equal(now.host, before[index].host, 'the same host');
        assert.deepEqual(await tab.heard('USER_LEFT'), [], 'nobody left');
      }
      await say(bob, 'still here');
      for (const tab of both) await tab.until('the line after', chatSays, 'still here');
      await ann.click('#play');
      await allInStep(both, { playing: false });
    });
  });
}

for (const [transport, signal] of [['websocket', 'SIGKILL'], ['webtransport', 'SIGKILL'], ['websocket', 'SIGTERM'], ['webtransport', 'SIGTERM']]) {
  describe(`two nodes with addresses of their own and nothing in front, over ${transport}`, () => {
    test(`name each other, and after ${signal} the member of one goes on at the other`, async (t) => {
      const [one, two] = await twoNodes(t);
      const others = async (node) => (await (await fetch(`${node.origin}/api/transports`)).json()).nodes;
      assert.equal((await others(one))[0].webSocket.url, `ws://localhost:${two.port}/ws`);
      assert.equal((await others(one))[0].webTransport.url, `https://127.0.0.1:${two.quicPort}/wt`);

      const room = roomName('others');
      const ann = await browser.join(t, { server: one, room, name: 'Ann', transport, allowed: GONE });
      const bob = await browser.join(t, { server: two, room, name: 'Bob', transport, allowed: GONE });
      const before = await bob.room();
      await ann.listen();
      await two.stop(/** @type {NodeJS.Signals} */ (signal));
      await until('Bob being at the other node', async () => (await membersOf(one)).sessions === 2, { within: 60_000 });
      await bob.until('being back', () => window.tandem.room.state === 'joined' && window.tandem.room.members.every(({ connected }) => connected), null, { within: 60_000 });
      const after = await bob.room();
      assert.deepEqual([after.slot, after.userId, after.transport], [before.slot, before.userId, transport]);
      assert.deepEqual(await ann.heard('USER_LEFT'), [], 'nobody left');
    });
  });
}
