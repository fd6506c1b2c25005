import assert from 'node:assert/strict';
import { test } from 'node:test';
import { syncVideo } from '../client/index.js';
import { byHand, pause, play, URL_OF_FILM, watching } from './support/watching.js';

const choose = (server, url) => server.commit({ type: 'URL_CHANGE', userId: 'bob', url, currentTime: 0, playback: { position: 0, rate: 1, playing: false, at: server.roomTime() } });
const players = (server) => server.receivedOf('PLAYER').map(({ state, reason, duration, film }) => [state, reason ?? duration ?? null, film]);

test('an element that was emptied shows the same film again: left and entered anew', async () => {
  const { env, room, sync, video } = await watching();
  sync.stop();
  video.removeAttribute('src');
  video.load();
  assert.equal(video.currentSrc, URL_OF_FILM, 'which browsers keep');
  syncVideo(room, video);
  await env.advance(1000);
  assert.equal(video.readyState, 4);
});

test('an element that shows the film already is not loaded anew', async () => {
  const { env, room, sync, video } = await watching();
  sync.stop();
  syncVideo(room, video);
  await env.advance(1000);
  assert.equal(video.loads, 1);
});

test('a film that another script emptied is loaded again, but not in a fight', async () => {
  const { env, video } = await watching();
  video.removeAttribute('src');
  video.load();
  await env.advance(1000);
  assert.equal(video.readyState, 4);
  video.addEventListener('loadedmetadata', () => {
    video.removeAttribute('src');
    video.load();
  });
  video.removeAttribute('src');
  video.load();
  await env.advance(60_000);
  assert.ok(video.loads < 10, `${video.loads} times`);
});

test('the same address chosen again after an error is loaded again', async () => {
  let works = false;
  const { env, server, video } = await watching({ video: { works: () => works }, loads: false });
  await env.advance(1000);
  assert.equal(video.error.code, 4);
  works = true;
  choose(server, URL_OF_FILM);
  await env.advance(1000);
  assert.deepEqual([video.error, video.readyState], [null, 4]);
});

test('a film that failed is tried again by itself, ever less often, and by retry', async () => {
  let works = true;
  const { env, server, video, sync, eventsOf } = await watching({ video: { works: () => works, duration: 6000 } });
  play(server, { position: 30 });
  await env.advance(3000);
  works = false;
  video.fail(2);
  await env.advance(1000);
  assert.deepEqual(sync.player, { state: 'failed', reason: 'network' });
  const { loads } = video;
  await env.advance(10 * 60_000);
  assert.ok(video.loads - loads > 5 && video.loads - loads < 20, `${video.loads - loads} tries in 10 minutes`);
  works = true;
  assert.equal(sync.retry(), true);
  await env.advance(3000);
  assert.equal(sync.player.state, 'ready');
  assert.equal(video.paused, false);
  works = false;
  video.fail(2);
  await env.advance(5000);
  works = true;
  await env.advance(90_000);
  assert.equal(video.paused, false, 'the address works again');
  assert.ok(eventsOf('player').length < 12, 'the room is not told of each try');
});

test('a seek that hangs with its data at hand is freed by loading the film again, now and then', async () => {
  let hangs = false;
  const { env, server, video } = await watching({ video: { seekData: () => !hangs, buffered: 100 } });
  hangs = true;
  pause(server, 30);
  await env.advance(60_000);
  assert.ok(video.loads >= 2 && video.loads <= 4, `${video.loads} loads`);
  hangs = false;
  await env.advance(25_000);
  assert.equal(video.truePosition(), 30);
});

test('back on the network a failed film is tried at once', async () => {
  let works = true;
  const { env, video, sync } = await watching({ video: { works: () => works } });
  works = false;
  video.fail(2);
  await env.advance(120_000);
  works = true;
  env.page('online');
  await env.advance(500);
  assert.equal(sync.player.state, 'ready');
});

test('an element that the page loads is left to the page', async () => {
  const { env, server, video, sync } = await watching({ manageSource: false, before: (video) => (video.src = URL_OF_FILM) });
  video.fail(3);
  await env.advance(60_000);
  assert.equal(sync.retry(), false);
  assert.deepEqual(sync.player, { state: 'failed', reason: 'decode' });
  assert.equal(video.loads, 1);
  video.src = 'https://example.org/other.webm';
  await env.advance(1000);
  assert.equal(sync.player.state, 'ready');
  choose(server, URL_OF_FILM);
  await env.advance(1000);
  assert.equal(video.currentSrc, 'https://example.org/other.webm');
});

test('the room hears what the player can do, when that changes', async () => {
  const { env, server, video, sync, room } = await watching();
  assert.deepEqual(players(server), [['loading', null, 0], ['ready', 600, 0]]);
  await env.advance(30_000);
  video.fail(3);
  await env.advance(1000);
  assert.deepEqual(players(server).slice(2), [['failed', 'decode', 0]]);
  choose(server, 'https://example.org/two.webm');
  await env.advance(1000);
  assert.deepEqual(players(server).slice(3), [['loading', null, 1], ['ready', 600, 1]]);
  server.line.end(1006);
  await env.until('being back', () => room.state === 'joined');
  await env.advance(500);
  assert.deepEqual(players(server).slice(5), [['ready', 600, 1]], 'a membership that is taken over starts without a player');
  sync.stop();
  await env.settle();
  assert.deepEqual(players(server).slice(6), [['none', null, 1]]);
});

test('a server that does not count films hears nothing of players', async () => {
  const { env, server } = await watching({ prepare: ({ room }) => delete room.film });
  await env.advance(3000);
  assert.deepEqual(players(server), []);
});

test('a player that waits for a click is none that the gate waits for', async () => {
  const { env, server, sync } = await watching({ video: { autoplay: 'never' } });
  play(server);
  await env.advance(3000);
  assert.deepEqual(sync.player, { state: 'failed', reason: 'blocked' });
  assert.deepEqual(players(server).at(-1), ['failed', 'blocked', 0]);
});

test('loop is the room\'s to decide: a film that ends ends for its members', async () => {
  const { env, server, video, sync, commands } = await watching({ host: false, video: { duration: 20 } });
  video.loop = true;
  play(server, { position: 15 });
  await env.advance(4000);
  video.loop = true; // A script insists.
  await env.advance(4000);
  assert.equal(video.ended, true);
  assert.equal(video.truePosition(), 20);
  assert.deepEqual(commands(), []);
  sync.stop();
  assert.equal(video.loop, true, 'given back as it was');
});

test('the length that an engine sets is told when it has kept it for a while, or is at its end', async () => {
  const url = 'blob:https://example.org/1';
  const { env, server, video } = await watching({ manageSource: false, video: { duration: 12 }, before: (video) => (video.src = url) });
  await env.advance(2000);
  video.setDuration(14);
  await env.advance(15_000);
  assert.deepEqual(players(server), [['loading', null, 0], ['ready', null, 0]]);
  await env.advance(8000);
  assert.deepEqual(players(server).at(-1), ['ready', 14, 0]);
});

for (const [name, makeLive] of Object.entries({
  'without an end': (video) => video.setDuration(Infinity),
  'whose window slides': (video, env) => { for (let i = 1; i <= 30; i++) env.setTimeout(() => video.setDuration(12 + i * 2), i * 2000); },
})) {
  test(`a live stream ${name} is left at its edge, and said to be one`, async () => {
    let edge = () => 0;
    const { env, server, video, sync, commands, eventsOf } = await watching({
      video: { duration: 12, land: (position) => Math.min(position, edge()) },
      before: (video) => (edge = () => video.duration - 5),
      prepare: (server) => (server.room.playback = { position: 500, rate: 1, playing: true, at: server.roomTime() - 60_000, seq: 1 }),
    });
    makeLive(video, env);
    await env.advance(8000);
    assert.deepEqual(sync.player, { state: 'failed', reason: 'live' });
    assert.deepEqual(players(server).at(-1), ['failed', 'live', 0]);
    assert.equal(eventsOf('limit').at(-1).reason, 'live');
    const { seek } = video.calls;
    video.begin();
    byHand(env, video, () => video.seek(video.duration === Infinity ? 40 : video.duration - 6));
    await env.advance(20_000);
    assert.equal(video.calls.seek, seek, 'nothing seeks it');
    assert.equal(video.paused, false);
    pause(server, 9);
    await env.advance(1000);
    assert.equal(video.paused, true);
    play(server, { position: 9 });
    await env.advance(1000);
    assert.deepEqual([video.paused, video.playbackRate, video.calls.seek], [false, 1, seek]);
    assert.deepEqual(commands(), []);
    assert.equal(server.line.compact.filter(({ kind, at }) => kind === 'tick' && at > server.roomTime() - 5000).length, 0, 'its place means nothing to others');
  });
}
