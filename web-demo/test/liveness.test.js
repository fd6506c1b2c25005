/** A server that dies without a word, one that only looks dead, and a page that was in no position to hear it. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { testSeed, seededRandom } from './support/fake-env.js';
import { joinedRoom } from './support/room-harness.js';

const OTHER = { webTransport: { url: 'https://b.test:4433/wt' }, webSocket: { url: 'wss://b.test/ws' } };
const open = ({ nodes = [OTHER], ...options } = {}) => joinedRoom({ setup: (server) => (server.endpoints.nodes = nodes), ...options });
const heardOf = (server, type) => server.receivedOf(type).length;

for (const transport of ['webtransport', 'websocket']) {
  describe(`over ${transport}`, () => {
    for (const [how, prepare] of [
      ['refuses', (server) => (server.lookupFails = true)],
      ['hangs', (server) => (server.lookupHangs = true)],
      ['is behind a balancer', () => {}],
    ]) {
      test(`a node that dies without a word (its address ${how}) is left within 4 s, for another one`, async (t) => {
        const random = seededRandom(testSeed(t));
        const times = [];
        for (let run = 0; run < 5; run++) {
          const { env, server, room } = await open({ transport });
          await env.advance(3000 + random() * 1000);
          server.line.cut = true;
          prepare(server);
          const died = env.now();
          await env.until('the other node having it', () => heardOf(server, 'JOIN') === 2 && room.state === 'joined', 6000);
          times.push(env.now() - died);
          assert.equal(server.receivedOf('JOIN')[1].resumeToken, 'token-1');
        }
        times.sort((a, b) => a - b);
        t.diagnostic(`ms: ${times.join(', ')}`);
        assert.ok(times[2] <= 4000, `p50 ${times[2]} ms`);
      });
    }

    test('the line in doubt is kept until another one is open', async () => {
      const { env, server, room } = await open({ transport, nodes: [] });
      server.line.cut = server.lookupHangs = true;
      server.behaviour.webtransport = server.behaviour.websocket = 'hangs';
      await env.advance(8000);
      assert.equal(room.state, 'joined');
      assert.equal(server.line.closedWith, null);
      assert.ok(server.lookups.length > 1, 'but another one is looked for');
    });

    test('a server that was only slow is not left: nobody notices anything', async () => {
      const { env, server, room, life, heardOf } = await open({ transport });
      server.lookupHangs = true; // As everything is, while that server stands still.
      server.behaviour.webtransport = server.behaviour.websocket = 'hangs';
      const states = heardOf('state').length;
      // What the client asks is answered, but later.
      const waiting = [];
      server.toPage = (deliver) => waiting.push(deliver);
      await env.advance(5000);
      server.toPage = (deliver) => deliver();
      waiting.forEach((deliver) => deliver());
      await env.advance(20_000);
      assert.equal(room.state, 'joined');
      assert.equal(server.lines.length, 1);
      assert.equal(server.receivedOf('JOIN').length, 1);
      assert.equal(heardOf('state').length, states);
      assert.equal(server.line.closedWith, null);
      void life;
    });

    test('an idle member says no more for it', async () => {
      const { env, server, life } = await open({ transport });
      life.hide(1000);
      const before = server.line.compact.length;
      const pings = heardOf(server, 'PING');
      await env.advance(60_000);
      assert.ok(server.line.compact.length - before <= 61, `${server.line.compact.length - before} probes`);
      assert.ok(heardOf(server, 'PING') - pings <= 12, `${heardOf(server, 'PING') - pings} pings`);
      assert.equal(server.lookups.length, 1);
    });

    test('an hour in a hidden tab whose timers come once a minute is no dead server', async () => {
      const { env, server, room, life } = await open({ transport });
      life.hide(60_000);
      const pings = heardOf(server, 'PING');
      await env.advance(3_600_000);
      assert.equal(room.state, 'joined');
      assert.deepEqual([server.lines.length, server.lookups.length], [1, 1]);
      assert.ok(heardOf(server, 'PING') - pings <= 121, 'and it says little');
    });

    test('a server that dies for a hidden tab is left all the same, at the second look', async () => {
      const { env, server, room, life } = await open({ transport });
      life.hide(60_000);
      await env.advance(600_000);
      server.line.cut = true;
      await env.until('being joined again', () => heardOf(server, 'JOIN') === 2 && room.state === 'joined', 200_000);
    });

    for (const mailFirst of [true, false]) {
      for (const [time, ms] of [['5 s', 5000], ['20 s', 20_000]]) {
        test(`a page that stood still for ${time} reads its mail before it judges (${mailFirst ? 'mail' : 'timers'} first)`, async () => {
          const { env, server, room, life } = await open({ transport });
          server.behaviour.webtransport = server.behaviour.websocket = 'hangs';
          life.stop();
          for (let id = 1; id * 3000 < ms; id++) {
            await env.advance(3000);
            server.line.deliver({ type: 'PROBE', id, timestamp: 1 });
          }
          await env.advance(ms % 3000);
          await life.resume({ mailFirst });
          await env.advance(10_000);
          assert.equal(room.state, 'joined');
          assert.equal(server.lines.length, 1);
          assert.equal(heardOf(server, 'JOIN'), 1);
        });
      }
    }

    test('a page that slept finds its line dead within 2 s, by whichever clock', async () => {
      for (const sleep of [
        async ({ env, life }) => {
          life.stop();
          await env.advance(600_000);
          await life.resume();
        },
        async ({ env, server }) => {
          // The steady clock stands still with the machine.
          env.wallOffset += 600_000;
          server.offset += 600_000;
        },
      ]) {
        const harness = await open({ transport });
        const { env, server, room } = harness;
        await env.advance(2300);
        server.line.cut = true;
        await sleep(harness);
        const woke = env.now();
        await env.until('being joined again', () => heardOf(server, 'JOIN') === 2 && room.state === 'joined', 5000);
        assert.ok(env.now() - woke < 2000, `${env.now() - woke} ms`);
        await env.advance(500);
        assert.ok(room.clock.synced);
        assert.ok(Math.abs(room.clock.roomTime() - server.roomTime()) < 10);
      }
    });

    test('a path that died, and not the server, is left although the browser asks for addresses on a dead connection', async () => {
      const { env, server, room } = await open({ transport, nodes: [] });
      await env.advance(3000);
      server.line.cut = server.lookupHangs = true;
      const cut = env.now();
      await env.until('being joined again', () => heardOf(server, 'JOIN') === 2 && room.state === 'joined', 6000);
      assert.ok(env.now() - cut <= 4000, `${env.now() - cut} ms`);
    });

    test('when the network has changed, the old path is soon in doubt', async () => {
      const { env, server, room } = await open({ transport });
      server.line.cut = true;
      env.page('online');
      const began = env.now();
      await env.until('being joined again', () => heardOf(server, 'JOIN') === 2 && room.state === 'joined', 5000);
      assert.ok(env.now() - began < 1000, `${env.now() - began} ms`);
    });

    test('a server that does not answer JOIN is not tried faster for it', async () => {
      const { env, server } = await open({ transport, nodes: [] });
      server.answersJoin = false;
      server.line.end(1006);
      await env.advance(9000);
      server.lines.forEach((line) => (line.cut = true));
      await env.advance(600);
      assert.equal(server.lines.length, 2);
    });
  });
}

test('after a server that hangs there is no pause on top of the wait for it', async () => {
  const { env, server, room } = await open({ nodes: [] });
  server.line.cut = server.lookupHangs = true;
  server.behaviour.websocket = 'hangs';
  await env.advance(120_000);
  assert.equal(room.state, 'reconnecting');
  const waits = server.lookups.slice(1).map(({ at }, i) => at - server.lookups[i].at);
  assert.ok(Math.max(...waits) <= 10_000, `${waits}`);
  assert.ok(Math.min(...waits.slice(-5)) >= 5000, 'and it is not run down');
});
