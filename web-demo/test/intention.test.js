import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeEnv } from './support/fake-env.js';
import { FakeServer } from './support/fake-server.js';
import { joinedRoom, outcome } from './support/room-harness.js';

/** A room that plays at 10, and then stands at the gate of a seek to 30. */
async function atTheGate(state = {}) {
  const env = new FakeEnv();
  const server = new FakeServer(env);
  Object.assign(server.room, state);
  const harness = await joinedRoom({ env, server });
  server.commit({ type: 'PLAY_PAUSE', userId: 'ann', control: 'play', playback: { position: 10, rate: 1, playing: true, at: server.roomTime() } });
  const gate = { id: 3, targetTime: 30, awaiting: ['bob'], ready: [], deadline: server.roomTime() + 7000, by: 'ann' };
  server.commit({ type: 'SEEK_PAUSE', userId: 'ann', currentTime: 30, gateId: 3, gate, playback: { position: 30, rate: 1, playing: false, at: server.roomTime() } });
  await env.settle();
  return { ...harness, gate };
}

const acknowledge = (server, message, seq) => server.line.deliver({ type: 'ACK', ref: message.ref, epoch: server.room.epoch, seq, timestamp: 1 });

test('a room that stands at the gate means to play: a seek from there leaves that to the room', async () => {
  const { env, server, room } = await atTheGate();
  assert.equal(room.playback.playing, false);
  assert.equal(room.wantsPlaying, true);
  room.seek(33).catch(() => {});
  await env.settle();
  assert.equal('isPlaying' in server.receivedOf('SEEK')[0], false);
});

test('a server that knows no intention is told: a seek from the gate plays on', async () => {
  const { env, server, room } = await atTheGate({ film: undefined });
  room.seek(33).catch(() => {});
  await env.settle();
  assert.equal(server.receivedOf('SEEK')[0].isPlaying, true);
});

test('commands name the film that they were decided on, and a start at the gate that gate', async () => {
  const { env, server, room } = await atTheGate({ film: 7 });
  for (const command of [() => room.pause(), () => room.seek(3), () => room.setRate(2), () => room.play(), () => room.seek(9, { film: 6 })]) command().catch(() => {});
  await env.settle();
  const sent = server.received.filter(({ ref, type }) => ref && type !== 'JOIN').map(({ type, film, gate }) => [type, film, gate]);
  assert.deepEqual(sent, [['PLAY_PAUSE', 7, undefined], ['SEEK', 7, undefined], ['SET_RATE', 7, undefined], ['PLAY_PAUSE', 7, 3], ['SEEK', 6, undefined]]);
});

test('a pause at the gate, or a gate that closes, ends the intention to play', async () => {
  const { env, server, room } = await atTheGate();
  server.commit({ type: 'PLAY_PAUSE', userId: 'bob', control: 'pause', playback: { position: 30, rate: 1, playing: false, at: server.roomTime() } });
  await env.settle();
  assert.equal(room.wantsPlaying, false);
});

test('seeks right behind one another, and behind a play, all mean the same', async () => {
  const { env, server, room } = await atTheGate({ film: undefined });
  room.pause(0).catch(() => {});
  for (const command of [() => room.play(0), () => room.seek(10), () => room.seek(20), () => room.pause(), () => room.seek(30)]) command().catch(() => {});
  await env.settle();
  assert.deepEqual(server.receivedOf('SEEK').map(({ isPlaying }) => isPlaying), [true, true, false]);
  assert.equal(room.wantsPlaying, false);
});

test('an acknowledged command is under way until its event is here', async () => {
  const { env, server, room } = await joinedRoom();
  const played = room.play(0);
  await env.settle();
  acknowledge(server, server.receivedOf('PLAY_PAUSE')[0], server.room.seq + 1);
  await outcome(env, played);
  assert.equal(room.playback.playing, false);
  assert.equal(room.wantsPlaying, true, 'the event is still on its way');
  server.commit({ type: 'PLAY_PAUSE', userId: 'ann', control: 'play', playback: { position: 0, rate: 1, playing: true, at: server.roomTime() } });
  server.commit({ type: 'PLAY_PAUSE', userId: 'bob', control: 'pause', playback: { position: 1, rate: 1, playing: false, at: server.roomTime() } });
  await env.settle();
  assert.equal(room.wantsPlaying, false, 'what came after it counts');
});

test('a refused command leaves the intention to the room', async () => {
  const { env, server, room } = await atTheGate();
  const paused = room.pause();
  await env.settle();
  assert.equal(room.wantsPlaying, false);
  server.line.deliver({ type: 'ERROR', code: 'NOT_IN_CONTROL', message: 'no', ref: server.receivedOf('PLAY_PAUSE')[0].ref });
  assert.equal((await outcome(env, paused)).code, 'NOT_IN_CONTROL');
  assert.equal(room.wantsPlaying, true);
});

test('a film that ended is over for the room, and play starts it from its beginning', async () => {
  const { env, server, room, heardOf } = await atTheGate();
  server.commit({ type: 'PLAYER_STATE', userId: 'ann', state: 'ready', duration: 600 });
  server.commit({ type: 'PLAY_PAUSE', userId: 'server', control: 'pause', reason: 'ended', playback: { position: 600, rate: 1, playing: false, at: server.roomTime() } });
  await env.settle();
  assert.deepEqual([room.ended, room.duration, heardOf('ended').length], [true, 600, 1]);
  room.play().catch(() => {});
  await env.settle();
  assert.deepEqual(server.receivedOf('PLAY_PAUSE').map(({ currentTime }) => currentTime), [0]);
  assert.equal(room.ended, false, 'it is to play again');
});

test('members say whether they can play the film, and start over with another one', async () => {
  const { env, server, room } = await atTheGate();
  assert.equal(room.members[0].player, 'none');
  server.commit({ type: 'PLAYER_STATE', userId: 'ann', state: 'failed', reason: 'decode', duration: null });
  await env.settle();
  assert.deepEqual([room.members[0].player, room.members[0].playerReason], ['failed', 'decode']);
  server.commit({ type: 'URL_CHANGE', userId: 'ann', url: 'https://example.org/two.webm', currentTime: 0, playback: { position: 0, rate: 1, playing: false, at: 0 } });
  await env.settle();
  assert.deepEqual([room.members[0].player, room.members[0].playerReason, room.film, room.duration], ['loading', null, 1, null]);
});
