import assert from 'node:assert/strict';
import { test } from 'node:test';
import { OffsetEstimator, RoomClock } from '../client/clock.js';
import { decodeCompact } from '../client/wire.js';
import { FakeEnv, seededRandom, testSeed } from './support/fake-env.js';

/** One exchange over a line with these one-way delays. */
function exchange(estimator, at, offset, there, back) {
  const arrived = at + there + offset;
  estimator.add(at, arrived, arrived + 0.1, at + there + 0.1 + back);
  return at + there + back;
}

test('an exchange over a symmetric line gives the offset exactly', () => {
  const estimator = new OffsetEstimator();
  exchange(estimator, 1000, 5_000_000, 10, 10);
  assert.ok(Math.abs(estimator.offsetAt(1020) - 5_000_000) < 1e-6);
  assert.equal(Math.round(estimator.rtt), 20);
});

test('an asymmetric line is never further off than half its round trip, and says so', () => {
  const estimator = new OffsetEstimator();
  for (let i = 0; i < 8; i++) exchange(estimator, 1000 + i * 50, 5_000_000, 40, 4);
  const off = Math.abs(estimator.offsetAt(1400) - 5_000_000);
  assert.ok(off <= estimator.error, `${off} ms off, ${estimator.error} ms promised`);
  assert.ok(estimator.error <= 23);
});

test('under heavy jitter the best exchanges win', (t) => {
  const random = seededRandom(testSeed(t));
  const estimator = new OffsetEstimator();
  const delay = () => 3 + (random() < 0.5 ? random() * 60 : random() * 0.5);
  let at = 1000;
  const offs = [];
  for (let i = 0; i < 120; i++) {
    at = exchange(estimator, at + (i < 8 ? 50 : 1000), 7_000_000, delay(), delay());
    if (i >= 16) offs.push(Math.abs(estimator.offsetAt(at) - 7_000_000));
  }
  offs.sort((a, b) => a - b);
  assert.ok(offs[Math.floor(offs.length * 0.95)] < 8, `p95 ${offs[Math.floor(offs.length * 0.95)]} ms off`);
});

test('clocks that part by 50 ppm are followed', () => {
  const estimator = new OffsetEstimator();
  let offset = 1_000_000;
  let at = 0;
  for (let i = 0; i < 300; i++) {
    at += 1000;
    offset += 0.05;
    // A fast exchange now and then must not outweigh newer ones for a quarter of a minute.
    const delay = i % 15 === 0 ? 4.9 : 5;
    exchange(estimator, at, offset, delay, delay);
    if (i > 15) assert.ok(Math.abs(estimator.offsetAt(at) - offset) < 0.3, `${estimator.offsetAt(at) - offset} ms behind`);
  }
});

test('once synced the offset glides by at most 5 ms a second', () => {
  const estimator = new OffsetEstimator();
  for (let i = 0; i < 8; i++) exchange(estimator, i * 50, 1000, 20, 0); // 10 ms off
  const before = estimator.offsetAt(400);
  exchange(estimator, 400, 1000, 1, 1);
  assert.ok(Math.abs(estimator.offsetAt(402) - before) < 0.1, 'no jump');
  assert.ok(Math.abs(estimator.offsetAt(1402) - before) <= 5.001, 'no faster than that');
  assert.ok(Math.abs(estimator.offsetAt(4000) - 1000) < 0.1, 'but all the way');
});

test('an offset that is off by more than 50 ms is stepped, once there is evidence', () => {
  const estimator = new OffsetEstimator();
  for (let i = 0; i < 8; i++) exchange(estimator, i * 50, 1000, 5, 5);
  estimator.restart();
  exchange(estimator, 500, 1000, 600, 0);
  assert.ok(Math.abs(estimator.offsetAt(1100) - 1000) < 6, 'a line that got slow proves nothing');
  exchange(estimator, 1150, 1400, 5, 5);
  assert.ok(Math.abs(estimator.offsetAt(1160) - 1400) < 0.001, 'a clock that was moved is believed');
});

test('when room time was stepped, exchanges of before do not outweigh worse ones of after', () => {
  for (const moved of [400, -400, 300]) {
    const estimator = new OffsetEstimator();
    for (let i = 0; i < 16; i++) exchange(estimator, i * 1000, 1000, 5, 5);
    exchange(estimator, 17_000, 1000 + moved, 40, 30);
    assert.ok(Math.abs(estimator.offsetAt(17_100) - 1000 - moved) < 6, `${estimator.offsetAt(17_100) - 1000} ms`);
  }
});

test('an exchange that no clock allows is refused', () => {
  const estimator = new OffsetEstimator();
  assert.equal(estimator.add(100, 1000, 1100, 150), false);
  assert.equal(estimator.add(100, 1100, 1000, 250), false);
  assert.equal(estimator.add(100, NaN, NaN, 250), false);
  assert.equal(estimator.synced, false);
});

function clockOn(env, { answer = true } = {}) {
  const probes = [];
  const clock = new RoomClock(env, (bytes) => {
    const probe = decodeCompact(bytes);
    probes.push({ ...probe, at: env.now() });
    if (!answer) return;
    env.setTimeout(() => {
      const at = env.now() + 5_000;
      env.setTimeout(() => clock.onReply({ id: probe.id, t0: probe.t0, t1: at, t2: at }), 4);
    }, 4);
  });
  return { clock, probes };
}

test('probing starts with eight in fast succession, then goes on at one a second', async () => {
  const env = new FakeEnv();
  const { clock, probes } = clockOn(env);
  clock.resync();
  await env.advance(400);
  assert.equal(probes.length, 8);
  assert.ok(clock.synced);
  await env.advance(5000);
  assert.equal(probes.length, 13);
  assert.ok(Math.abs(clock.roomTime() - (env.now() + 5000)) < 0.01);
});

test('a laptop that slept measures again: its steady clock stood still', async () => {
  const env = new FakeEnv();
  const { clock, probes } = clockOn(env);
  clock.resync();
  await env.advance(3000);
  const before = probes.length;
  env.wallOffset += 60_000; // The wall clock went on, the steady one didn't.
  await env.advance(1000);
  assert.equal(clock.synced, true);
  assert.ok(probes.length >= before + 1);
  await env.advance(400);
  assert.ok(probes.length >= before + 8, `a burst, not ${probes.length - before} probes`);
});

test('a reply counts once, and only for a probe of ours', async () => {
  const env = new FakeEnv();
  const { clock, probes } = clockOn(env, { answer: false });
  clock.resync();
  const { id, t0 } = probes[0];
  await env.advance(10);
  clock.onReply({ id, t0: t0 + 1, t1: 0, t2: 0 });
  clock.onReply({ id: id + 9, t0, t1: 0, t2: 0 });
  assert.equal(clock.rtt, Infinity);
  clock.onReply({ id, t0, t1: 6000, t2: 6000 });
  const rtt = clock.rtt;
  await env.advance(20);
  clock.onReply({ id, t0, t1: 9999, t2: 9999 });
  assert.equal(clock.rtt, rtt);
});

test('no probe is sent after stop', async () => {
  const env = new FakeEnv();
  const { clock, probes } = clockOn(env);
  clock.resync();
  clock.stop();
  await env.advance(10_000);
  assert.equal(probes.length, 1);
});

/** Room time as estimated by a page whose clock moves in steps, on a line with these delays. */
async function coarse({ step, blur = 0, seed = 1, there = 3, back = 3 }) {
  const env = new FakeEnv({ seed });
  const random = seededRandom(seed);
  env.time = 1000.37;
  const offset = 1_795_000_000_123.4;
  const truth = () => env.time + offset;
  env.now = () => (step ? Math.floor((env.time + blur * random() * step) / step) * step : env.time);
  const clock = new RoomClock(env, (bytes) => {
    const { id, t0 } = decodeCompact(bytes);
    env.setTimeout(() => {
      const t1 = truth();
      env.setTimeout(() => clock.onReply({ kind: 'reply', id, t0, t1, t2: t1 }), back * (0.5 + random()));
    }, there * (0.5 + random()));
  });
  clock.resync();
  let off = 0;
  for (let i = 0; i < 400; i++) {
    await env.advance(37.3 + random() * 10);
    if (clock.synced) off = Math.max(off, Math.abs(clock.roomTime() - truth()) - clock.error);
  }
  clock.stop();
  return { clock, beyond: off };
}

for (const step of [1, 1000 / 60, 100]) {
  for (const blur of [0, 1]) {
    test(`a clock that moves in steps of ${step.toFixed(1)} ms${blur ? ', blurred,' : ''} says so: room time is within the error that is told`, async (t) => {
      const { clock, beyond } = await coarse({ step, blur, seed: testSeed(t) });
      assert.ok(Math.abs(clock.grain - step) < 0.3, `grain ${clock.grain}`);
      assert.ok(clock.synced);
      assert.ok(beyond <= 0, `${beyond} ms beyond the error of ${clock.error}`);
      assert.ok(clock.error < step * 2 + 7, `${clock.error}`);
    });
  }
}

test('a fine clock has no grain', async (t) => {
  const { clock } = await coarse({ step: 0, seed: testSeed(t), there: 12.3, back: 9.1 });
  assert.equal(clock.grain, 0);
  assert.ok(clock.error < 17);
});
