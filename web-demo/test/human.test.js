import assert from 'node:assert/strict';
import { test } from 'node:test';
import { byHand, pause, play, watching } from './support/watching.js';

/** A room that plays, with a host's player in step. */
async function playing(options) {
  const watched = await watching(options);
  play(watched.server);
  await watched.env.advance(4000);
  return watched;
}

for (const [name, disturb] of Object.entries({
  'a pause in a hidden tab': ({ env, video }) => { env.isHidden = true; env.page('visibilitychange'); video.halt(); },
  'a pause of which the page hears before it is hidden': ({ env, video }) => { env.input('keydown', { key: 'Tab', ctrlKey: true }); video.halt(); env.isHidden = true; },
  'a pause right after a key, of a page that is hidden then': ({ env, video }) => { env.input('keydown', { key: 'j' }); video.halt(); env.isHidden = true; },
  'a pause of a page that is seen': ({ video }) => video.halt(),
  'a decode error': ({ video }) => video.fail(3),
  'a decode error right after a click': ({ env, video }) => { env.input('pointerdown', { target: video }); env.input('pointerup', { target: video }); video.fail(3); },
  'a hop over a hole': ({ video }) => video.seek(video.position + 1.1),
  'a hop back': ({ video }) => video.seek(1),
  'a hop while somebody writes in the chat': ({ env, video }) => { env.input('keydown', { key: 'h', target: { tagName: 'TEXTAREA' } }); video.seek(video.position + 1.1); },
  'a hop out of a stall while somebody clicks elsewhere': ({ env, video }) => { video.stall(); env.setTimeout(() => { env.input('pointerdown', {}); env.input('pointerup', {}); video.stalled = false; video.seek(video.truePosition() + 0.6); }, 300); },
  'a rate that something else sets': ({ video }) => video.setRate(1.25),
  'a click that a script made': ({ env, video }) => { env.input('pointerdown', { target: video, isTrusted: false }); video.seek(200); },
  'an emptied element': ({ video }) => { video.removeAttribute('src'); video.load(); },
})) {
  test(`${name} is no command, and the player finds back by itself`, async () => {
    const watched = await playing();
    const { env, room, commands, eventsOf, drift, video } = watched;
    disturb(watched);
    await env.advance(2500);
    if (env.isHidden) {
      env.isHidden = false;
      env.page('visibilitychange');
    }
    await env.advance(12_000);
    assert.deepEqual(commands(), []);
    assert.deepEqual(eventsOf('denied'), []);
    assert.equal(room.playback.playing, true);
    assert.equal(video.paused, false);
    assert.ok(Math.abs(drift()) < 30, `${drift()} ms`);
  });
}

test('a script that plays the element of a room that stands is put back', async () => {
  const { env, video, commands, eventsOf } = await watching();
  video.begin();
  await env.advance(1000);
  assert.equal(video.paused, true);
  assert.deepEqual([commands(), eventsOf('denied')], [[], []]);
});

test('a browser that pauses again and again is not fought: the viewer is told, and their click is the end of it', async () => {
  const { env, video, sync, commands, eventsOf } = await playing();
  video.addEventListener('playing', () => env.setTimeout(() => sync.limit === null && video.halt(), 50));
  video.halt();
  await env.advance(60_000);
  assert.deepEqual(eventsOf('limit').map(({ reason }) => reason), ['paused']);
  const { play: plays } = video.calls;
  await env.advance(60_000);
  assert.equal(video.calls.play, plays, 'it waits');
  assert.ok(plays < 10, `${plays}`);
  assert.equal(video.paused, true);
  sync.resume();
  await env.advance(40);
  assert.equal(sync.limit, null);
  assert.deepEqual(commands(), []);
});

test('media keys are a hand: they command the room, and show what the room means to do', async () => {
  const handlers = new Map();
  const mediaSession = {
    playbackState: 'none',
    setActionHandler(action, fn) {
      if (action === 'seekto') throw new TypeError('no such action here');
      handlers.set(action, fn);
    },
  };
  const { env, server, room, sync, commands } = await watching({ prepare: ({ env }) => (env.mediaSession = mediaSession) });
  play(server);
  await env.advance(3000);
  assert.equal(mediaSession.playbackState, 'playing');
  handlers.get('pause')({ action: 'pause' });
  await env.advance(1000);
  assert.deepEqual(commands().map(({ type, control }) => [type, control]), [['PLAY_PAUSE', 'pause']]);
  assert.equal(mediaSession.playbackState, 'paused');
  handlers.get('seekforward')({ action: 'seekforward', seekOffset: 30 });
  await env.advance(500);
  assert.ok(Math.abs(commands().at(-1).currentTime - (room.playback.position)) < 0.1);
  const gate = { id: 3, targetTime: 90, awaiting: ['bob'], ready: [], deadline: 0, by: 'ann' };
  server.commit({ type: 'SEEK_PAUSE', userId: 'ann', gateId: 3, gate, playback: { position: 90, rate: 1, playing: false, at: server.roomTime() } });
  await env.settle();
  assert.equal(mediaSession.playbackState, 'playing', 'at the gate it means to play');
  sync.stop();
  assert.deepEqual([...handlers.values()].filter(Boolean), []);
});

test('play on the player itself at the gate neither starts it nor stops the room', async () => {
  const { env, server, video, room, commands } = await playing();
  const gate = { id: 3, targetTime: 90, awaiting: ['bob'], ready: [], deadline: 0, by: 'ann' };
  server.commit({ type: 'SEEK_PAUSE', userId: 'bob', gateId: 3, gate, playback: { position: 90, rate: 1, playing: false, at: server.roomTime() } });
  await env.advance(1000);
  byHand(env, video, () => video.begin());
  await env.advance(1000);
  assert.equal(video.paused, true);
  assert.equal(room.wantsPlaying, true);
  assert.deepEqual(commands(), []);
});

test('a drag whose data never comes is a SEEK at once, and the member goes on hearing the room', async () => {
  const { env, server, video, commands } = await playing({ video: { seekData: (position) => position < 40 } });
  byHand(env, video, () => video.seek(55));
  await env.advance(400);
  assert.deepEqual(commands().map(({ type, currentTime }) => [type, currentTime]), [['SEEK', 55]]);
  await env.advance(2000);
  assert.equal(video.seeking, true);
  play(server, { position: 3 });
  await env.advance(3000);
  assert.ok(video.truePosition() > 3 && video.truePosition() < 8 && !video.seeking, 'another start elsewhere');
  byHand(env, video, () => video.seek(55));
  await env.advance(50);
  pause(server, 12);
  await env.advance(4000);
  server.commit({ type: 'URL_CHANGE', userId: 'bob', url: 'https://example.org/two.webm', currentTime: 0, playback: { position: 0, rate: 1, playing: false, at: server.roomTime() } });
  await env.advance(100);
  assert.equal(video.currentSrc, 'https://example.org/two.webm');
});

test('a command that nobody answers keeps the member from the room for a moment only', async () => {
  const { env, server, video } = await playing();
  server.onRequest = () => {};
  byHand(env, video, () => video.halt());
  await env.advance(1000);
  play(server, { position: 100 });
  await env.advance(3500);
  assert.equal(video.paused, false);
  assert.ok(video.truePosition() > 100);
});

test('a drag back to where the room was sent before is a seek as any other', async () => {
  const { env, server, video, commands } = await watching();
  pause(server, 30);
  await env.advance(1000);
  play(server, { position: 30 });
  await env.advance(5000);
  byHand(env, video, () => video.seek(30.1));
  await env.advance(1000);
  assert.deepEqual(commands().map(({ type, currentTime }) => [type, currentTime]), [['SEEK', 30.1]]);
});

test('what a seek of the page lets the player do is not the viewer\'s doing once more', async () => {
  const { env, room, video, commands } = await playing();
  env.input('pointerdown', { target: { type: 'range' } });
  room.seek(42);
  env.input('pointerup', { target: { type: 'range' } });
  env.input('click', { target: { type: 'range' }, detail: 1 });
  await env.until('the seek', () => video.seeking);
  await env.until('its end', () => !video.seeking);
  video.seek(42.6); // The engine finds a hole there.
  await env.advance(3000);
  assert.deepEqual(commands().map(({ type, currentTime }) => [type, currentTime]), [['SEEK', 42]]);
});

test('what an engine does right after a press on play is not another command', async () => {
  const { env, video, commands } = await watching();
  env.input('pointerdown', { target: video });
  video.begin();
  await env.advance(20);
  env.input('pointerup', { target: video });
  env.input('click', { target: video, detail: 1 });
  await env.until('playing', () => video.moving);
  video.seek(0.4);
  await env.advance(3000);
  assert.deepEqual(commands().map(({ type }) => type), ['PLAY_PAUSE']);
});

test('a click that assistive technology makes is a press', async () => {
  const { env, video, room, commands } = await playing();
  env.input('keydown', { key: 'k' });
  room.play();
  await env.advance(2000);
  env.input('click', { target: video, detail: 0 });
  video.halt();
  await env.advance(500);
  assert.deepEqual(commands().map(({ control }) => control), ['play', 'pause']);
});

test('a page\'s own slider that pauses at the press and seeks while it is dragged is heard to its end', async () => {
  const { env, video, commands } = await playing();
  const target = { type: 'range' };
  env.input('pointerdown', { target });
  video.halt();
  await env.advance(300);
  for (const position of [40, 50, 60]) {
    env.input('pointermove', { target, buttons: 1 });
    video.seek(position);
    await env.advance(100);
  }
  env.input('pointerup', { target });
  await env.advance(1000);
  assert.deepEqual(commands().at(-1).currentTime, 60);
});

/** A press on the element's own controls, whose events the browser keeps to itself. */
async function onOwnControls(options) {
  const watched = await playing(options);
  const { env, video } = watched;
  video.controls = true;
  env.isActive = true;
  video.pseudo.add(':hover');
  return watched;
}

test('presses on the own controls are seen by what they leave: an activation, under the pointer', async () => {
  const { env, video, commands } = await onOwnControls();
  video.halt();
  await env.advance(1000);
  video.begin();
  await env.advance(1000);
  await env.advance(5000);
  video.seek(50);
  await env.advance(1000);
  await env.advance(6000);
  video.setRate(1.5);
  await env.advance(1000);
  assert.deepEqual(commands().map(({ type, control }) => control ?? type), ['pause', 'play', 'SEEK', 'SET_RATE']);
});

test('a drag on the own time line is one seek, with an activation that another press explains', async () => {
  const { env, video, commands } = await onOwnControls();
  env.input('keydown', { key: 'h', target: { tagName: 'TEXTAREA' } });
  video.halt();
  video.seek(60);
  video.begin();
  await env.advance(1000);
  assert.deepEqual(commands().map(({ type, currentTime }) => [type, currentTime]), [['SEEK', 60]]);
});

for (const [name, change] of Object.entries({
  'without an activation': ({ env }) => (env.isActive = false),
  'of an element without controls': ({ video }) => (video.controls = false),
  'with the pointer elsewhere': ({ video }) => video.pseudo.clear(),
  'with an activation by the chat, and a pointer that rests on the film': ({ env }) => env.input('keydown', { key: 'h', target: { tagName: 'TEXTAREA' } }),
})) {
  test(`a hop ${name} is no press on the own controls`, async () => {
    const watched = await onOwnControls();
    change(watched);
    watched.video.seek(60);
    await watched.env.advance(3000);
    assert.deepEqual(watched.commands(), []);
  });
}

test('a hop soon after a press on the own controls is the engine\'s, until the pointer moves on them', async () => {
  const { env, video, commands } = await onOwnControls();
  video.halt();
  await env.advance(500);
  video.begin();
  await env.advance(1500);
  video.seek(90);
  await env.advance(1500);
  assert.deepEqual(commands().map(({ type, control }) => control ?? type), ['pause', 'play']);
  env.input('pointermove', { target: video });
  video.seek(90);
  await env.advance(1000);
  assert.equal(commands().at(-1).type, 'SEEK');
});
