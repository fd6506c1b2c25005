/** A player that can't keep up says so, isn't awaited (the server's part: src/room/tests/player.rs), and comes back. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import { play, watching } from './support/watching.js';

/** A player that follows the room's film, and what it says of itself. */
async function playing(options) {
  const harness = await watching({ host: false, ...options });
  play(harness.server);
  await harness.env.advance(5000);
  const told = () => harness.server.receivedOf('PLAYER').filter(({ state }) => state === 'ready').map(({ reason }) => reason ?? null);
  return { ...harness, told };
}

async function stalls({ env, video }, ms = 2000, plays = 5000) {
  video.stall();
  await env.advance(ms);
  video.unstall();
  await env.advance(plays);
}

test('a player whose data comes too slowly says so once, and that it keeps up again, without a command', async () => {
  const harness = await playing();
  const { env, room, told, drift, commands, sync, eventsOf } = harness;
  for (let times = 0; times < 3; times++) await stalls(harness);
  assert.deepEqual(told(), [null, 'stalls']);
  assert.equal(sync.limit, 'stalls');
  for (let times = 0; times < 4; times++) await stalls(harness);
  assert.deepEqual(told(), [null, 'stalls']);
  await env.until('keeping up again', () => told().length === 3, 40_000);
  assert.equal(told()[2], null);
  assert.equal(sync.limit, null);
  assert.deepEqual(eventsOf('limit').map(({ reason }) => reason), ['stalls', null]);
  assert.ok(Math.abs(drift()) < 30, `${drift()} ms`);
  assert.deepEqual(commands(), []);
  assert.equal(room.playback.playing, true);
});

test('so does one that waits for its data without an end', async () => {
  const { env, video, told } = await playing();
  video.stall();
  await env.advance(25_000);
  assert.deepEqual(told(), [null, 'stalls']);
  video.unstall();
  await env.until('keeping up again', () => told().length === 3, 40_000);
});

test('so does one whose seek gets no data', async () => {
  const { env, server, told, video } = await playing();
  video.options.seekData = () => false;
  play(server, { position: 200 });
  await env.advance(28_000);
  assert.deepEqual(told(), [null, 'stalls']);
  video.options.seekData = () => true;
  play(server, { position: 300 });
  await env.until('keeping up again', () => told().length === 3, 40_000);
});

test('a device that falls behind again and again says so, and is back in step by itself', async () => {
  const { env, video, told, drift, commands } = await playing({ video: { speed: 0.85 } });
  await env.until('saying it', () => told().at(-1) === 'slow', 60_000);
  video.options.speed = 1;
  await env.until('keeping up', () => told().at(-1) === null, 60_000);
  await env.advance(3000);
  assert.ok(Math.abs(drift()) < 30, `${drift()} ms`);
  assert.deepEqual(commands(), []);
});

test('so does one that shows half of its frames', async () => {
  const { env, video, told } = await playing({ video: { dropsFrames: 0.5 } });
  await env.until('saying it', () => told().at(-1) === 'slow', 30_000);
  video.options.dropsFrames = 0.05;
  await env.until('keeping up', () => told().at(-1) === null, 40_000);
});

test('a stall now and then, a seek, a hidden tab without frames, and a page that stood still are no lag', async () => {
  const harness = await playing({ video: { dropsFrames: 0.05 } });
  const { env, server, video, told, life } = harness;
  for (let times = 0; times < 4; times++) await stalls(harness, 2000, 40_000);
  for (let times = 0; times < 6; times++) {
    play(server, { position: 20 * times });
    await env.advance(4000);
  }
  life.hide();
  video.options.dropsFrames = 1;
  await env.advance(60_000);
  video.options.dropsFrames = 0.05;
  life.show();
  for (let times = 0; times < 4; times++) {
    life.stop();
    video.suspend();
    await env.advance(5000);
    video.wake();
    await life.resume();
    await env.advance(60_000);
  }
  assert.deepEqual(told(), [null]);
});
