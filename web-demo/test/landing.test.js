import assert from 'node:assert/strict';
import { test } from 'node:test';
import { play, watching } from './support/watching.js';

const keyFrames = (seconds) => (position) => Math.floor(position / seconds) * seconds;
const atGate = (server, targetTime, awaiting = ['ann']) => {
  const gate = { id: 3, targetTime, awaiting, ready: [], deadline: server.roomTime() + 7000, by: 'bob' };
  server.commit({ type: 'SEEK_PAUSE', userId: 'bob', gateId: 3, gate, playback: { position: targetTime, rate: 1, playing: false, at: server.roomTime() } });
};
const ticks = (server) => server.line.compact.filter(({ kind }) => kind === 'tick');

for (const host of [true, false]) {
  test(`a player that seeks to key frames is READY where it landed, seeks a time or two, and plays (host: ${host})`, async () => {
    const { env, server, video, sync, commands, eventsOf, drift } = await watching({ host, video: { land: keyFrames(4) } });
    play(server);
    await env.advance(3000);
    const { seek } = video.calls;
    atGate(server, 13.4);
    await env.advance(1500);
    assert.equal(server.receivedOf('READY').length, 1);
    assert.ok(video.calls.seek - seek <= 2, `${video.calls.seek - seek} seeks`);
    play(server, { position: 13.4 });
    await env.advance(6000);
    assert.ok(video.calls.seek - seek <= 2, `${video.calls.seek - seek} seeks`);
    assert.equal(video.paused, false);
    assert.deepEqual(eventsOf('limit').map(({ reason }) => reason).slice(0, 1), ['seek']);
    await env.advance(25_000);
    assert.ok(Math.abs(drift()) < 30, `its rate does the rest: ${drift()} ms`);
    assert.equal(sync.limit, null);
    assert.deepEqual(commands(), []);
    atGate(server, 50.5);
    await env.advance(1000);
    assert.equal(video.calls.seek - seek, 3, 'what was learned of the source spares it the second try');
    assert.equal(server.receivedOf('READY').length, 2);
  });
}

for (const host of [true, false]) {
  test(`where every seek is one to 0, a late joiner plays what it has, and pulls nobody along (host: ${host})`, async () => {
    const { env, server, room, video, sync, drift, commands, eventsOf } = await watching({
      host,
      video: { land: () => 0 },
      prepare: (server) => {
        server.room.guestControlEnabled = true;
        server.room.playback = { position: 240, rate: 1, playing: true, at: server.roomTime() - 60_000, seq: 1 };
      },
    });
    await env.advance(20_000);
    assert.ok(video.calls.seek <= 3, `${video.calls.seek} seeks`);
    assert.equal(video.paused, false);
    assert.equal(video.playbackRate, 1, 'a rate would take an hour');
    assert.deepEqual([sync.limit, eventsOf('limit').length], ['seek', 1]);
    assert.ok(sync.drift < -200_000);
    assert.deepEqual(commands(), []);
    assert.equal(ticks(server).filter(({ fromHost, at }) => fromHost && at > server.roomTime() - 15_000).length, 0);
    atGate(server, 10);
    await env.advance(1000);
    assert.equal(server.receivedOf('READY').length, 1);
    play(server, { position: 10 });
    await env.advance(1000);
    assert.equal(video.paused, true, 'it is ahead, and waits for the others');
    await env.advance(12_000);
    assert.equal(video.paused, false);
    assert.ok(Math.abs(drift()) < 30, `${drift()} ms`);
    assert.equal(room.playback.playing, true);
  });
}

test('one miss is chance: the next try may land', async () => {
  let misses = 1;
  const { env, server, video, sync, drift } = await watching({ video: { land: (position) => (position > 20 && misses-- > 0 ? position - 8 : position) } });
  atGate(server, 60);
  await env.advance(1500);
  assert.equal(video.truePosition(), 60);
  play(server, { position: 60 });
  await env.advance(3000);
  assert.ok(Math.abs(drift()) < 20);
  assert.equal(sync.limit, null);
});

test('a source that seeks exactly again is trusted again, and so is another film', async () => {
  let exact = false;
  const { env, server, video } = await watching({ video: { land: (position) => (exact ? position : keyFrames(4)(position)) } });
  for (const target of [13.4, 57.7]) {
    atGate(server, target);
    await env.advance(1500);
  }
  exact = true;
  for (const target of [100, 200, 300, 301]) {
    atGate(server, target);
    await env.advance(1500);
  }
  assert.equal(video.truePosition(), 301, 'a small seek, too');
});

test('a player that lands ahead waits for the room', async () => {
  const { env, server, video, drift } = await watching({ video: { land: (position) => Math.ceil(position / 4) * 4 } });
  atGate(server, 13.4);
  await env.advance(1500);
  play(server, { position: 13.4 });
  await env.advance(1500);
  assert.equal(video.truePosition(), 16);
  await env.advance(3000);
  assert.ok(Math.abs(drift()) < 30, `${drift()} ms`);
});

test('without byte ranges, a late joiner is in step as soon as what the room shows is buffered', async () => {
  let loaded = 0;
  const { env, video, sync, drift } = await watching({
    host: false,
    video: { land: (position) => (position < loaded ? position : 0) },
    prepare: (server) => (server.room.playback = { position: 240, rate: 1, playing: true, at: server.roomTime(), seq: 1 }),
  });
  await env.advance(10_000);
  const { seek } = video.calls;
  assert.equal(sync.limit, 'seek');
  video.options.buffered = loaded = 400;
  await env.advance(5000);
  assert.ok(Math.abs(drift()) < 30, `${drift()} ms`);
  assert.equal(video.calls.seek, seek + 1);
  assert.equal(sync.limit, null);
});

test('where even seeks to what is buffered miss, they are not tried again and again', async () => {
  const { env, video } = await watching({
    host: false,
    video: { land: () => 0, buffered: 600 },
    prepare: (server) => (server.room.playback = { position: 240, rate: 1, playing: true, at: server.roomTime(), seq: 1 }),
  });
  await env.advance(120_000);
  assert.ok(video.calls.seek <= 3, `${video.calls.seek} seeks`);
});

test('where the browser offers no seek, none is tried: the player plays what it has, and is READY with it', async () => {
  const { env, server, video, sync } = await watching({
    host: false,
    video: { land: () => 0, seekable: 0 },
    prepare: (server) => (server.room.playback = { position: 240, rate: 1, playing: true, at: server.roomTime(), seq: 1 }),
  });
  await env.advance(20_000);
  assert.deepEqual([video.calls.seek, video.paused, sync.limit], [0, false, 'seek']);
  atGate(server, 100);
  await env.advance(1000);
  assert.equal(server.receivedOf('READY').length, 1);
  play(server, { position: 100 });
  await env.advance(2000);
  assert.deepEqual([video.calls.seek, video.paused], [0, false]);
  atGate(server, 0);
  await env.advance(1000);
  assert.equal(video.truePosition(), 0, 'but back to the start it goes');
});
