import assert from 'node:assert/strict';
import { test } from 'node:test';
import { syncVideo } from '../client/index.js';
import { encodeDigest } from '../client/wire.js';
import { FakeEnv, testSeed } from './support/fake-env.js';
import { FakeServer } from './support/fake-server.js';
import { FakeVideo } from './support/fake-video.js';
import { joinedRoom } from './support/room-harness.js';
import { byHand, pause, play, URL_OF_FILM, watching } from './support/watching.js';

async function driftsOver(env, drift, ms) {
  const sizes = [];
  for (let i = 0; i < ms / 50; i++) {
    await env.advance(50);
    sizes.push(Math.abs(drift()));
  }
  sizes.sort((a, b) => a - b);
  return { p95: sizes[Math.floor(sizes.length * 0.95)], max: sizes.at(-1) };
}

test('the room URL is loaded, its pitch kept, and the player put to its position', async () => {
  const { video } = await watching({ prepare: ({ room }) => (room.playback = { position: 42, rate: 1, playing: false, at: 0, seq: 1 }) });
  assert.equal(video.currentSrc, URL_OF_FILM);
  assert.equal(video.preservesPitch, true);
  assert.equal(video.crossOrigin, undefined);
  assert.equal(video.truePosition(), 42);
  assert.equal(video.paused, true);
});

test('a URL that no player can fetch is not loaded', async () => {
  const { env, server, video } = await watching();
  server.commit({ type: 'URL_CHANGE', userId: 'bob', url: 'javascript:alert(1)', currentTime: 0, playback: { position: 0, rate: 1, playing: false, at: 0 } });
  await env.advance(500);
  assert.equal(video.currentSrc, URL_OF_FILM);
});

test('a film that starts elsewhere by itself is put to its place, without a command', async () => {
  const { env, video, commands } = await watching({ prepare: ({ room }) => (room.url = 'https://example.org/film.webm#t=30') });
  await env.advance(2000);
  assert.equal(video.truePosition(), 0);
  assert.deepEqual(commands(), []);
});

test('what a player does before it was put to its place is nobody else\'s business', async () => {
  const env = new FakeEnv();
  const server = new FakeServer(env);
  server.answersProbes = false;
  const { room } = await joinedRoom({ env, server });
  const video = new FakeVideo(env);
  syncVideo(room, video);
  video.src = URL_OF_FILM;
  await env.advance(500);
  video.seek(30);
  video.setRate(2);
  await env.advance(1000);
  assert.deepEqual(server.received.filter(({ type }) => type === 'SEEK' || type === 'SET_RATE'), []);
});

test('another film is loaded when the room changes to it, from its position, without a command', async () => {
  const { env, server, video, commands } = await watching();
  play(server);
  await env.advance(3000);
  server.commit({ type: 'URL_CHANGE', userId: 'bob', url: 'https://example.org/two.webm', currentTime: 5, playback: { position: 5, rate: 1, playing: false, at: server.roomTime() } });
  await env.advance(1000);
  assert.equal(video.currentSrc, 'https://example.org/two.webm');
  assert.equal(video.truePosition(), 5);
  assert.deepEqual(commands(), []);
});

test('a scheduled start shows its first frame at its moment', async () => {
  const { env, server, room, video, drift } = await watching({ video: { startMs: 90 } });
  // The second one: the first has taught it how long starting takes here.
  play(server);
  await env.advance(2000);
  pause(server, 30);
  await env.advance(1000);
  assert.equal(video.truePosition(), 30);
  const at = play(server, { position: 30, lead: 300 });
  await env.advance(290);
  assert.equal(video.truePosition(), 30, 'not before its time');
  await env.advance(100);
  assert.ok(room.clock.roomTime() > at && Math.abs(drift()) < 20, `${drift()} ms`);
});

test('a start that a lost packet delayed begins at once and catches up, without a seek that would cost it more', async () => {
  const { env, server, video, drift } = await watching({ video: { startMs: 60, seekMs: [200, 250] } });
  play(server);
  await env.advance(2000);
  pause(server, 30);
  await env.advance(1000);
  const { seek } = video.calls;
  // Its moment is over by the time it is heard of; starting takes 60 ms more.
  play(server, { position: 30, lead: -100 });
  await env.advance(100);
  assert.ok(video.truePosition() > 30, 'it plays');
  const { max: behind } = await driftsOver(env, drift, 400);
  assert.ok(behind < 200, `${behind} ms`);
  await env.advance(2000);
  const { max } = await driftsOver(env, drift, 1000);
  assert.ok(max < 20, `${max} ms`);
  assert.equal(video.calls.seek, seek);
});

for (const [name, options] of Object.entries({
  'a steady element': {},
  'one whose currentTime moves in steps of 40 ms (Firefox)': { frames: true, stepMs: 40 },
})) {
  test(`it learns that a start after a seek takes longer than one after a pause, with ${name}`, async (t) => {
    const { env, server, video, drift } = await watching({ seed: testSeed(t), video: { startMs: 110, resumeMs: 10, ...options } });
    const starts = { seek: [], pause: [] };
    for (let round = 0; round < 12; round++) {
      const kind = round % 2 ? 'pause' : 'seek';
      // Held where it is, or somewhere else.
      pause(server, kind === 'pause' ? video.truePosition() : 30 + round * 10);
      await env.advance(1500);
      play(server, { position: video.truePosition(), lead: 300 });
      await env.advance(440);
      starts[kind].push(drift());
      await env.advance(2500);
    }
    for (const [kind, drifts] of Object.entries(starts)) {
      for (const last of drifts.slice(2)) assert.ok(Math.abs(last) < 15, `after a ${kind}: ${drifts.map(Math.round)} ms`);
    }
  });
}

test('a new rate is heard at its moment by a player that takes its time for it', async () => {
  const { env, server, room, drift } = await watching({ video: { rateMs: 100 } });
  play(server);
  await env.advance(3000);
  for (const rate of [1.5, 1]) {
    const at = server.roomTime() + 150;
    server.commit({ type: 'RATE_CHANGED', userId: 'bob', rate, playback: { position: room.positionNow(at), rate, playing: true, at } });
    await env.advance(150);
    const { max } = await driftsOver(env, drift, 900);
    assert.ok(max < 20, `to ${rate}: ${max} ms`);
    await env.advance(1000);
  }
});

for (const [name, options] of Object.entries({
  'a steady element': {},
  'one whose currentTime jitters by 15 ms, with outliers of 60': { jitterMs: 15, outlierMs: 60 },
  'one that runs 0.4 % slow': { speed: 0.996 },
  'one that runs 0.4 % fast': { speed: 1.004 },
  'one that tells its frames': { frames: true },
  'one whose currentTime moves in steps of 40 ms, but which tells its frames': { frames: true, stepMs: 40 },
  'one that starts slowly and seeks slowly': { startMs: 150, seekMs: [400, 900] },
})) {
  test(`after a start ${name} is within 20 ms soon, and stays there`, async (t) => {
    const { env, server, drift } = await watching({ seed: testSeed(t), video: options });
    play(server);
    await env.advance(3200);
    const { p95, max } = await driftsOver(env, drift, 30_000);
    assert.ok(p95 <= 20, `p95 ${p95} ms, max ${max} ms`);
  });

  test(`a late joiner with ${name} is within 20 ms after 3 s`, async (t) => {
    const { env, drift, sync } = await watching({
      seed: testSeed(t),
      video: options,
      prepare: (server) => (server.room.playback = { position: 100, rate: 1, playing: true, at: server.roomTime() - 60_000, seq: 1 }),
    });
    await env.advance(3000);
    const { p95 } = await driftsOver(env, drift, 10_000);
    assert.ok(p95 <= 20, `p95 ${p95} ms, ${JSON.stringify(sync.stats())}`);
  });
}

test('a player in step is left alone', async () => {
  const { env, server, video } = await watching({ video: { jitterMs: 4 } });
  play(server);
  await env.advance(4000);
  const before = { ...video.calls };
  await env.advance(60_000);
  assert.deepEqual(video.calls, before);
});

test('drift below 600 ms is corrected by rate alone, by at most 8 %', async () => {
  const { env, server, video, sync, drift } = await watching();
  play(server);
  await env.advance(5000);
  video.position += 0.15;
  const { seek, pause: pauses } = video.calls;
  const rates = [];
  for (let i = 0; i < 30; i++) {
    await env.advance(100);
    rates.push(video.playbackRate);
  }
  assert.ok(Math.min(...rates) >= 0.92 && Math.min(...rates) < 1, `${rates}`);
  assert.ok(Math.abs(drift()) < 12, `${drift()} ms left`);
  assert.deepEqual([video.calls.seek, video.calls.pause], [seek, pauses]);
  assert.equal(sync.stats().jumps, 0);
});

test('drift above 600 ms is jumped, once', async () => {
  const { env, server, video, sync, drift } = await watching();
  play(server);
  await env.advance(5000);
  video.position -= 2;
  await env.advance(3000);
  assert.ok(Math.abs(drift()) < 20, `${drift()} ms left`);
  assert.equal(sync.stats().jumps, 1);
});

test('a device that cannot keep up is not made to jump all the time', async () => {
  const { env, server, sync } = await watching({ video: { speed: 0.5 } });
  play(server);
  await env.advance(60_000);
  assert.ok(sync.stats().jumps <= 8, `${sync.stats().jumps} jumps in a minute`);
});

test('what the room does to the player is not sent back as commands', async () => {
  const { env, server, video, commands, eventsOf } = await watching({ seed: 3, video: { jitterMs: 15, outlierMs: 60 } });
  for (let i = 0; i < 5; i++) {
    play(server, { position: i * 50, rate: i % 2 ? 1.5 : 1 });
    await env.advance(2500);
    video.position -= 1.5;
    await env.advance(2500);
    pause(server, i * 50 + 20);
    await env.advance(1500);
  }
  assert.deepEqual(commands(), []);
  assert.deepEqual(eventsOf('denied'), []);
});

test('a viewer in control who presses pause, play and seeks commands the room', async () => {
  const { env, server, video, room, commands, drift } = await watching();
  play(server);
  await env.advance(5000);
  const { play: plays } = video.calls;
  byHand(env, video, () => video.halt());
  await env.advance(1000);
  assert.equal(video.calls.play, plays, 'its own pause is not undone while it is under way');
  assert.deepEqual(commands().map(({ type, control }) => [type, control]), [['PLAY_PAUSE', 'pause']]);
  assert.ok(Math.abs(commands()[0].currentTime - 4.8) < 0.1);
  assert.equal(video.paused, true);
  assert.equal(room.playback.playing, false);

  byHand(env, video, () => video.begin());
  await env.advance(1);
  assert.equal(video.paused, true, 'it starts with all the others, not before them');
  await env.advance(1999);
  assert.equal(commands().length, 2);
  assert.equal(commands()[1].control, 'play');
  assert.equal(video.paused, false);
  assert.ok(Math.abs(drift()) < 20);

  byHand(env, video, () => video.seek(200));
  await env.advance(3000);
  assert.equal(commands().length, 3);
  assert.deepEqual([commands()[2].type, commands()[2].currentTime], ['SEEK', 200]);
  assert.ok(Math.abs(drift()) < 20);

  byHand(env, video, () => video.setRate(1.5));
  await env.advance(1000);
  assert.deepEqual([commands()[3].type, commands()[3].rate], ['SET_RATE', 1.5]);
  assert.equal(commands().length, 4);
});

test('a drag on the time line is one seek, not a pause, a seek and a play', async () => {
  const { env, server, video, commands } = await watching();
  play(server);
  await env.advance(5000);
  env.input('pointerdown', { target: video });
  video.halt();
  await env.advance(30);
  video.seek(50);
  await env.advance(40);
  video.seek(60);
  await env.advance(40);
  video.seek(70);
  env.input('pointerup', { target: video });
  video.begin();
  await env.advance(2500);
  assert.deepEqual(commands().map(({ type, currentTime }) => [type, currentTime]), [['SEEK', 70]]);
});

test('a viewer without control is put back, told so, and heard by nobody', async () => {
  const { env, server, video, commands, eventsOf, drift } = await watching({ host: false });
  play(server);
  await env.advance(5000);
  byHand(env, video, () => video.halt());
  await env.advance(2500);
  assert.equal(video.paused, false);
  assert.ok(Math.abs(drift()) < 20, `${drift()} ms`);
  byHand(env, video, () => video.seek(300));
  await env.advance(3500);
  assert.ok(Math.abs(drift()) < 20, `${drift()} ms`);
  byHand(env, video, () => video.setRate(2));
  await env.advance(2500);
  assert.ok(Math.abs(video.playbackRate - 1) <= 0.08);
  pause(server, 10);
  await env.advance(1000);
  byHand(env, video, () => video.begin());
  await env.advance(1000);
  assert.equal(video.paused, true);
  assert.equal(video.truePosition(), 10);
  assert.deepEqual(commands(), []);
  assert.deepEqual(eventsOf('denied').map(({ action }) => action), ['pause', 'seek', 'rate', 'play']);
});

test('a command that cannot be sent is undone, and the viewer told', async () => {
  const { env, server, video, eventsOf } = await watching();
  play(server);
  await env.advance(5000);
  server.lookupFails = true;
  server.line.end(1006);
  await env.advance(2000);
  assert.equal(video.paused, false, 'the film goes on without a connection');
  byHand(env, video, () => video.halt());
  await env.advance(2000);
  assert.equal(video.paused, false);
  assert.deepEqual(eventsOf('denied'), [{ action: 'pause', code: 'DISCONNECTED' }]);
});

test('READY is said once, when the player is there and has data, not before', async () => {
  const { env, server, video, room } = await watching();
  play(server);
  await env.advance(3000);
  const gate = { id: 3, targetTime: 93.25, awaiting: ['ann'], ready: [], deadline: server.roomTime() + 7000, by: 'bob' };
  video.stalled = true;
  server.commit({ type: 'SEEK_PAUSE', userId: 'bob', gateId: 3, gate, playback: { position: 93.25, rate: 1, playing: false, at: server.roomTime() } });
  await env.advance(1500);
  assert.equal(video.truePosition(), 93.25);
  assert.deepEqual(server.receivedOf('READY'), []);
  assert.equal(room.members[0].buffering, true);
  video.unstall();
  await env.advance(1000);
  assert.deepEqual(server.receivedOf('READY').map(({ gateId, targetTime }) => [gateId, targetTime]), [[3, 93.25]]);
});

test('a gate that waits for others is none of ours', async () => {
  const { env, server } = await watching();
  const gate = { id: 3, targetTime: 9, awaiting: ['bob'], ready: [], deadline: 0, by: 'ann' };
  server.commit({ type: 'SEEK_PAUSE', userId: 'ann', gateId: 3, gate, playback: { position: 9, rate: 1, playing: false, at: server.roomTime() } });
  await env.advance(1000);
  assert.deepEqual(server.receivedOf('READY'), []);
});

test('the host ticks four times a second while playing, once otherwise; a guest once', async () => {
  for (const [host, playing, least, most] of [[true, true, 38, 41], [true, false, 9, 11], [false, true, 9, 11]]) {
    const { env, server } = await watching({ host });
    if (playing) play(server);
    await env.advance(4000);
    const before = server.line.compact.filter(({ kind }) => kind === 'tick').length;
    await env.advance(10_000);
    const ticks = server.line.compact.filter(({ kind }) => kind === 'tick').slice(before);
    assert.ok(ticks.length >= least && ticks.length <= most, `${ticks.length} ticks, host ${host}, playing ${playing}`);
    assert.ok(ticks.every((tick) => tick.playing === playing));
  }
});

test('a guest of a large room, whose position nobody hears, tells it every ten seconds', async () => {
  const digest = { members: 40, audience: 0, measured: 0, inStep: 0, buffering: 0, p50Ms: null, p95Ms: null, standOuts: [] };
  for (const [host, least, most] of [[false, 3, 4], [true, 115, 125]]) {
    const { env, server } = await watching({ host });
    play(server);
    await env.advance(4000);
    const [ticks, statuses] = [server.compactOf('tick').length, server.compactOf('status').length];
    for (let second = 0; second < 30; second++) {
      server.line.deliverCompact(encodeDigest(digest));
      await env.advance(1000);
    }
    const told = server.compactOf('tick').length - ticks;
    assert.ok(told >= least && told <= most, `${told} ticks in 30 s, host ${host}`);
    assert.ok(server.compactOf('status').length - statuses >= 14, 'its status is what the digest is made of');
  }
});

test('a host that stalls says so, and says no position', async () => {
  const { env, server, video } = await watching();
  play(server);
  await env.advance(4000);
  const ticks = () => server.line.compact.filter(({ kind }) => kind === 'tick').length;
  video.stall();
  await env.advance(100);
  const before = ticks();
  await env.advance(3000);
  assert.equal(ticks(), before);
  assert.equal(server.compactOf('status').at(-1).buffering, true);
  video.unstall();
  await env.advance(3000);
  assert.ok(ticks() > before);
  assert.equal(server.compactOf('status').at(-1).buffering, false);
});

test('status goes out at least every 2 s, at most twice a second', async () => {
  const { env, server, video } = await watching();
  play(server);
  await env.advance(3000);
  const count = () => server.compactOf('status').length;
  const before = count();
  await env.advance(10_000);
  assert.ok(count() - before >= 5, `${count() - before} in 10 s`);
  const calm = count();
  for (let i = 0; i < 40; i++) {
    if (i % 2) video.unstall();
    else video.stall();
    await env.advance(50);
  }
  assert.ok(count() - calm <= 5, `${count() - calm} in 2 s`);
});

test('the end of the film is left in peace', async () => {
  const { env, server, video, commands } = await watching({ video: { duration: 20 } });
  play(server, { position: 15 });
  await env.advance(6000);
  assert.equal(video.ended, true);
  const calls = { ...video.calls };
  await env.advance(10_000);
  assert.deepEqual(video.calls, calls);
  assert.deepEqual(commands(), []);
  play(server, { position: 3 });
  await env.advance(3000);
  assert.equal(video.paused, false, 'and going back from there works');
});

test('where only silent films may start by themselves, it starts silently and says so', async () => {
  const { env, server, video, eventsOf, sync, drift } = await watching({ video: { autoplay: 'muted' } });
  play(server);
  await env.advance(3000);
  assert.deepEqual(eventsOf('autoplay-blocked'), [{ muted: true }]);
  assert.equal(video.paused, false);
  assert.ok(Math.abs(drift()) < 20);
  sync.resume();
  assert.equal(video.muted, false);
});

test('where nothing may start by itself, it waits for a click and then catches up', async () => {
  const { env, server, video, eventsOf, sync, drift } = await watching({ video: { autoplay: 'never' } });
  play(server);
  await env.advance(5000);
  assert.deepEqual(eventsOf('autoplay-blocked'), [{ muted: true }, { muted: false }]);
  assert.ok(video.calls.play < 4, 'and does not keep trying');
  video.options.autoplay = 'allowed';
  sync.resume();
  await env.advance(3000);
  assert.ok(Math.abs(drift()) < 20, `${drift()} ms`);
});

test('in a background tab the film plays on and is still kept in step', async () => {
  const { env, server, sync, drift } = await watching({ video: { speed: 0.999 } });
  play(server);
  await env.advance(3000);
  env.isHidden = true;
  env.page('visibilitychange');
  const { p95 } = await driftsOver(env, drift, 60_000);
  assert.ok(p95 < 40, `p95 ${p95} ms`);
  assert.equal(sync.stats().jumps, 0);
});

test('a small correction of a running film does not freeze it', async () => {
  const { env, server, room, video, drift } = await watching();
  play(server);
  await env.advance(5000);
  const { pause: pauses, seek } = video.calls;
  const at = server.roomTime() + 300;
  server.commit({ type: 'PLAYBACK', reason: 'correction', userId: 'bob', playback: { position: room.positionNow(at) + 0.1, rate: 1, playing: true, at } });
  await env.advance(3000);
  assert.deepEqual([video.calls.pause, video.calls.seek], [pauses, seek]);
  assert.ok(Math.abs(drift()) < 20, `${drift()} ms`);
});

test('stop gives the element back: no listener, no timer, the room rate', async () => {
  const { env, server, video, sync, room } = await watching();
  play(server);
  await env.advance(3000);
  sync.stop();
  room.leave();
  await env.advance(2000);
  const calls = { ...video.calls };
  video.halt();
  await env.advance(5000);
  assert.deepEqual(video.calls, calls);
  assert.equal(video.playbackRate, 1);
});
