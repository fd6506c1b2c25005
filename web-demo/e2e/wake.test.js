/** Browsers and nodes that stand still for a while, paths that change or die: in a real Chromium. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { twoNodes } from './support/cluster.js';
import { TcpRelay, UdpRelay } from './support/relays.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';
import { until } from './support/until.js';
import { assertUndisturbed, backInStep, filmGoesOn, seen, watch } from './support/watch.js';

const GONE = [/ERR_CONNECTION|ERR_QUIC|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE|ERR_TIMED_OUT|ERR_ABORTED/, /WebSocket connection to .* failed/, /Failed to establish a connection to/, /WebTransport/];

const server = new Server({ RATE_LIMITS: 'off' });
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

/** Ann, in a browser of her own, and Bob watch; what they do from now on is counted. */
async function watching(t, { at = server, bobAt = at, transport, apart = new Browser(), ...options }) {
  const room = roomName('wake');
  const ann = await apart.join(t, { server: at, room, name: 'Ann', transport, allowed: GONE, ...options });
  const bob = await browser.join(t, { server: bobAt, room, name: 'Bob', transport, allowed: GONE });
  await Promise.all([ann, bob].map((tab) => tab.film()));
  await ann.click('#play');
  await allInStep([ann, bob]);
  await Promise.all([ann, bob].map((tab) => watch(tab)));
  return { ann, bob, apart, room };
}

async function assertCalm(tab, t, took) {
  const { seeks, commands, joins, states } = await seen(tab);
  t.diagnostic(`in step after ${took} ms; ${seeks} seeks, ${joins} JOINs, ${states.join(' ') || 'always joined'}`);
  assert.deepEqual(commands, [], 'no command of its own');
  assert.ok(seeks <= 3, `${seeks} seeks are a storm`);
}

for (const transport of ['webtransport', 'websocket']) {
  describe(`over ${transport}`, () => {
    test('a browser that is stopped for 5 s is back in step soon, and pulls nobody along', async (t) => {
      const { ann, bob, apart } = await watching(t, { transport });
      const processes = await apart.processes();
      processes.forEach((pid) => process.kill(pid, 'SIGSTOP'));
      try {
        await filmGoesOn(bob, 5);
      } finally {
        processes.forEach((pid) => process.kill(pid, 'SIGCONT'));
      }
      const took = await backInStep(ann, performance.now());
      await assertCalm(ann, t, took);
      assert.ok((await seen(ann)).joins <= 1, 'its session lived, or was resumed once');
      await assertUndisturbed(bob);
    });

    test('a node that is stopped for 5 s is waited for, while the film goes on', async (t) => {
      const own = await Server.for(t);
      const { ann, bob } = await watching(t, { at: own, transport, apart: browser });
      process.kill(own.pid, 'SIGSTOP');
      try {
        await filmGoesOn(bob, 5);
      } finally {
        process.kill(own.pid, 'SIGCONT');
      }
      const took = await backInStep(ann, performance.now());
      await until('the node answering', () => ann.page.evaluate(() => window.tandem.room.pause()).then(() => true));
      for (const tab of [ann, bob]) {
        const { seeks, joins, states } = await seen(tab);
        t.diagnostic(`${tab.name}: in step after ${took} ms; ${seeks} seeks, ${joins} JOINs, ${states.join(' ') || 'always joined'}`);
        assert.ok(joins <= 1 && seeks <= 1);
      }
    });

    test('a node that stands still is left within seconds for the other one, which nobody else notices', async (t) => {
      const [one, two] = await twoNodes(t);
      const { ann, bob } = await watching(t, { at: one, bobAt: two, transport, apart: browser });
      process.kill(one.pid, 'SIGSTOP');
      const stopped = performance.now();
      await ann.until('being joined anew', () => window.seen.joins > 0 && window.tandem.room.state === 'joined', null, { within: 30_000 });
      t.diagnostic(`there after ${Math.round(performance.now() - stopped)} ms`);
      await assertCalm(ann, t, await backInStep(ann, stopped));
      await assertUndisturbed(bob);
      process.kill(one.pid, 'SIGCONT');
      await filmGoesOn(bob, 3);
      await allInStep([ann, bob]);
      assert.equal((await seen(ann)).joins, 1, 'the old session was ended, not the new one');
    });

    test('a path that dies without a word (another network) is left for a new one', async (t) => {
      const [udp, tcp] = [await UdpRelay.for(t, server.quicPort), await TcpRelay.for(t, server.port)];
      const { ann, bob } = await watching(t, { at: { origin: `http://localhost:${tcp.port}` }, bobAt: server, transport, apart: browser, quicPort: udp.port });
      assert.notEqual(udp.cut() + tcp.cut(), 0);
      const cut = performance.now();
      await ann.until('being joined anew', () => window.seen.joins === 1 && window.tandem.room.state === 'joined', null, { within: 30_000 });
      t.diagnostic(`joined anew after ${Math.round(performance.now() - cut)} ms`);
      await assertCalm(ann, t, await backInStep(ann, cut));
      await assertUndisturbed(bob);
    });
  });
}

test('a NAT that forgets its table, in the middle of the film, is not even noticed over WebTransport', async (t) => {
  const udp = await UdpRelay.for(t, server.quicPort);
  const { ann, bob } = await watching(t, { transport: 'webtransport', apart: browser, quicPort: udp.port });
  for (let times = 0; times < 2; times++) {
    assert.notEqual(udp.rebind(), 0);
    await filmGoesOn(bob, 4);
  }
  await allInStep([ann, bob]);
  for (const tab of [ann, bob]) {
    await assertUndisturbed(tab);
    const { joins, states } = await seen(tab);
    assert.deepEqual([joins, states], [0, []]);
  }
});
