import assert from 'node:assert/strict';
import { test } from 'node:test';
import { byHand, play, watching } from './support/watching.js';

async function behind(options, ms = 350) {
  const watched = await watching({ host: false, ...options });
  play(watched.server);
  await watched.env.advance(6000);
  watched.video.position -= ms / 1000;
  return watched;
}

const near = (rate) => Math.abs(rate - 1) < 0.2;

for (const [name, options] of Object.entries({
  'ignores fine rates': { takesRate: (rate) => !near(rate) || rate === 1 },
  'takes listed rates only, the next lower one': { roundsRate: (rate) => Math.floor(rate * 4) / 4 },
  'takes listed rates only, the next higher one': { roundsRate: (rate) => Math.ceil(rate * 4) / 4 },
  'says that it plays at a rate, but plays on as before': { playsAt: (rate) => (near(rate) ? 1 : rate) },
})) {
  for (const ms of [90, 350, -350, 412]) {
    test(`a player that ${name}, off by ${ms} ms, is brought back by a jump`, async () => {
      const { env, sync, drift, video } = await behind({ video: options }, ms);
      await env.advance(12_000);
      assert.ok(Math.abs(drift()) < 45, `${drift()} ms`);
      assert.equal(video.options.playsAt(video.playbackRate), 1);
      assert.ok(sync.stats().jumps >= 1 && sync.stats().jumps <= 3, `${sync.stats().jumps} jumps`);
    });
  }
}

test('jumps that are no use come ever less often, and the viewer is told', async () => {
  const { env, sync, eventsOf } = await behind({ video: { takesRate: (rate) => rate === 1, speed: 0.99 } });
  await env.advance(10 * 60_000);
  assert.ok(sync.stats().jumps <= 12, `${sync.stats().jumps} jumps in 10 minutes`);
  assert.ok(eventsOf('limit').some(({ reason }) => reason === 'rate'));
});

test('an extension that sets its own rate is not fought, and commands nothing', async () => {
  const { env, server, video, commands, sync } = await watching();
  video.addEventListener('ratechange', () => video.rate !== 1.25 && env.setTimeout(() => video.setRate(1.25), 5));
  play(server);
  await env.advance(5000);
  video.setRate(1.25);
  await env.advance(5000);
  const { rate } = video.calls;
  await env.advance(50_000);
  assert.ok(video.calls.rate - rate < 10, `${video.calls.rate - rate} rates in 50 s`);
  assert.deepEqual(commands(), []);
  assert.equal(sync.limit, 'rate');
});

test('a rate that the viewer chooses with an extension is the room\'s, once', async () => {
  const { env, server, video, commands } = await watching();
  video.addEventListener('ratechange', () => video.rate !== 1.25 && env.setTimeout(() => video.setRate(1.25), 5));
  play(server);
  await env.advance(500);
  byHand(env, video, () => video.setRate(1.25));
  await env.advance(5000);
  server.commit({ type: 'RATE_CHANGED', userId: 'bob', rate: 1.1, playback: { ...server.room.playback, rate: 1.1 } });
  await env.advance(30_000);
  assert.deepEqual(commands().map(({ type, rate }) => [type, rate]), [['SET_RATE', 1.25]]);
});

test('a rate that throws costs nothing but the rate', async () => {
  const { env, drift } = await behind({ video: { takesRate: (rate) => { if (rate !== 1) throw new DOMException('no', 'NotSupportedError'); return true; } } });
  await env.advance(12_000);
  assert.ok(Math.abs(drift()) < 45, `${drift()} ms`);
});

test('a rate of the room that the player does not have is asked for once, and made up for by jumps', async () => {
  const { env, server, video, sync } = await watching({ host: false, video: { roundsRate: (rate) => Math.floor(rate * 4) / 4 } });
  play(server, { rate: 1.1 });
  await env.advance(5000);
  const { rate } = video.calls;
  await env.advance(60_000);
  assert.ok(video.calls.rate - rate < 20, `${video.calls.rate - rate} rates in a minute`);
  assert.ok(sync.stats().jumps > 2 && sync.stats().jumps < 10, `${sync.stats().jumps} jumps`);
});
