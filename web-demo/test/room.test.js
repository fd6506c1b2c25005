import assert from 'node:assert/strict';
import { test } from 'node:test';
import { RoomModel } from '../client/model.js';
import { encodeDigest, encodeStatus, encodeTick } from '../client/wire.js';
import { FakeEnv, FakeStorage } from './support/fake-env.js';
import { FakeServer } from './support/fake-server.js';
import { joinedRoom, openRoom, outcome } from './support/room-harness.js';

const BOB = { userId: 'bob', username: 'Bob', slot: 2, connected: true, protocol: 3, transport: 'webtransport', joinedAt: 2 };

async function roomWithBob(options) {
  const env = options?.env ?? new FakeEnv();
  const server = new FakeServer(env);
  server.room.users.push(BOB);
  return joinedRoom({ ...options, env, server });
}

test('ready resolves with the first ROOM_STATE, and the model is what it says', async () => {
  const { room } = await roomWithBob();
  assert.equal(room.state, 'joined');
  assert.equal(room.transport, 'websocket');
  assert.deepEqual(room.self, { userId: 'ann', username: 'Ann', slot: 1, isHost: true, canControl: true });
  assert.deepEqual(room.members.map(({ userId, isHost }) => [userId, isHost]), [['ann', true], ['bob', false]]);
  assert.equal(room.seq, 4);
});

test('events in order are applied, each once', async () => {
  const { env, server, room, heardOf } = await roomWithBob();
  server.commit({ type: 'USER_JOINED', userId: 'cy', peerId: 'cy', username: 'Cy', slot: 3, protocol: 2, transport: 'websocket' });
  server.commit({ type: 'HOST_CHANGED', hostUserId: 'bob' });
  server.commit({ type: 'GUEST_CONTROL', enabled: true });
  server.commit({ type: 'USERNAME_UPDATED', userId: 'cy', username: 'Cyril' });
  server.commit({ type: 'PIN_CHANGED', hasPin: true });
  server.commit({ type: 'BANS_CHANGED', banned: ['eve'] });
  server.commit({ type: 'MEMBER_CONNECTION', userId: 'bob', connected: false, graceUntil: 42, transport: 'webtransport' });
  const chat = server.commit({ type: 'CHAT', userId: 'cy', username: 'Cyril', text: '<b>hi</b>' });
  server.line.deliver(chat);
  await env.settle();
  assert.deepEqual(room.members.map(({ userId, username, connected }) => [userId, username, connected]),
    [['ann', 'Ann', true], ['bob', 'Bob', false], ['cy', 'Cyril', true]]);
  assert.equal(room.hostUserId, 'bob');
  assert.equal(room.self.isHost, false);
  assert.equal(room.self.canControl, true);
  assert.equal(room.hasPin, true);
  assert.deepEqual(room.banned, ['eve']);
  assert.deepEqual(heardOf('chat').map(({ text }) => text), ['<b>hi</b>']);
  server.commit({ type: 'USER_LEFT', userId: 'bob', peerId: 'bob', reason: 'lost' });
  await env.settle();
  assert.deepEqual(room.members.map(({ userId }) => userId), ['ann', 'cy']);
  assert.equal(server.receivedOf('REQUEST_SYNC').length, 0);
});

test('members who come and go together are one message, which counts for all of its events', () => {
  const model = new RoomModel();
  const member = (userId, slot) => ({ userId, username: userId, slot, connected: true, protocol: 3, transport: 'websocket', joinedAt: slot, player: 'ready' });
  model.apply({ type: 'ROOM_STATE', epoch: 1, seq: 4, userId: 'ann', hostUserId: 'bob', users: [member('ann', 1), member('bob', 2)],
    gate: { id: 1, targetTime: 5, awaiting: ['ann', 'bob'], ready: [], deadline: 9, by: 'ann' } });
  const roster = { type: 'ROSTER', epoch: 1, seq: 8, events: 4, timestamp: 10,
    left: [{ userId: 'bob', reason: 'left' }, { userId: 'kim', reason: 'left' }], joined: [member('bob', 3), member('cy', 4)] };
  assert.deepEqual(model.apply(roster), { changed: true, gap: false, events: [] });
  assert.deepEqual(model.members.map(({ userId, slot, isHost, player }) => [userId, slot, isHost, player]),
    [['ann', 1, false, 'ready'], ['bob', 3, true, 'ready'], ['cy', 4, false, 'ready']]);
  assert.deepEqual(model.gate.awaiting, ['ann']);
  assert.equal(model.seq, 8);
  assert.equal(model.apply(roster).changed, false, 'heard again, it changes nothing');
  assert.equal(model.apply({ ...roster, seq: 13 }).gap, true, 'its first event is not the next one');
  assert.equal(model.seq, 8);
  model.apply({ type: 'GUEST_CONTROL', epoch: 1, seq: 9, enabled: true });
  assert.equal(model.guestControl, true);
});

test('of a member that was lost before one came, the latest end of its grace time is known', () => {
  const model = new RoomModel();
  const lost = { userId: 'bob', username: 'Bob', slot: 2, connected: false, protocol: 3, transport: 'websocket', joinedAt: 1 };
  const state = { type: 'ROOM_STATE', epoch: 1, seq: 4, userId: 'ann', users: [lost], roomTime: 1000, graceMs: 30_000 };
  const graceUntil = () => model.member('bob').graceUntil;
  model.apply(state);
  assert.equal(graceUntil(), 31_000);
  model.apply({ type: 'MEMBER_CONNECTION', epoch: 1, seq: 5, userId: 'bob', connected: false, graceUntil: 20_000 });
  model.apply({ ...state, seq: 6, roomTime: 2000 });
  assert.equal(graceUntil(), 20_000, 'what was told stands');
  model.apply({ ...state, seq: 7, roomTime: 50_000 });
  assert.equal(graceUntil(), 80_000, 'a kept room gives the time anew');
  model.apply({ ...state, seq: 8, users: [{ ...lost, connected: true }] });
  assert.equal(graceUntil(), null);
});

test('the gate comes and goes with the vector, and does not wait for who is not there', async () => {
  const { env, server, room } = await roomWithBob();
  const gate = { id: 3, targetTime: 9, awaiting: ['ann', 'bob'], ready: [], deadline: 7000, by: 'ann' };
  const playback = { position: 9, rate: 1, playing: false, at: 5 };
  server.commit({ type: 'SEEK_PAUSE', userId: 'ann', currentTime: 9, eventTimestamp: 5, gateId: 3, gate, playback });
  assert.deepEqual(room.gate, gate);
  server.commit({ type: 'READY_GATE', outcome: 'progress', gate: { ...gate, awaiting: ['bob'], ready: ['ann'] } });
  assert.deepEqual([room.gate.awaiting, room.gate.ready], [['bob'], ['ann']]);
  server.commit({ type: 'MEMBER_CONNECTION', userId: 'bob', connected: false, graceUntil: 9, transport: 'websocket', protocol: 3 });
  assert.deepEqual(room.gate.awaiting, []);
  server.commit({ type: 'PLAY_PAUSE', userId: 'server', control: 'play', playback: { ...playback, playing: true } });
  assert.equal(room.gate, null);
  await env.settle();
});

test('a measurement that is none is told as unknown', async () => {
  const { env, server, room } = await joinedRoom();
  room.sendStatus({ driftMs: -25_000_000, buffering: false });
  room.sendStatus({ driftMs: 1.26, buffering: true });
  await env.settle();
  const [wild, sane] = server.compactOf('status');
  assert.deepEqual([wild.driftMs, sane.driftMs, sane.buffering, sane.rttMs], [null, 1.26, true, 10]);
  assert.equal(room.members[0].driftMs, 1.26);
});

test('a playing vector is extrapolated in room time, and stands still before its start', async () => {
  const { env, server, room } = await joinedRoom();
  const at = server.roomTime() + 200;
  server.commit({ type: 'PLAY_PAUSE', userId: 'ann', control: 'play', playback: { position: 12.5, rate: 2, playing: true, at } });
  await env.settle();
  assert.equal(room.positionNow(at - 100), 12.5);
  assert.equal(room.positionNow(at + 1000), 14.5);
});

test('a gap asks for the state once, and takes it as the truth', async () => {
  const { env, server, room, heardOf } = await roomWithBob();
  server.answersSync = false;
  server.room.seq += 1; // One event is lost.
  server.commit({ type: 'USER_LEFT', userId: 'bob', peerId: 'bob', reason: 'left' });
  server.commit({ type: 'CHAT', userId: 'ann', username: 'Ann', text: 'in the gap' });
  await env.settle();
  assert.equal(server.receivedOf('REQUEST_SYNC').length, 1);
  assert.equal(room.members.length, 2, 'nothing is applied across a gap');
  server.room.users = server.room.users.filter(({ userId }) => userId !== 'bob');
  server.line.deliver({ ...server.room, resumeToken: undefined });
  server.commit({ type: 'CHAT', userId: 'ann', username: 'Ann', text: 'after it' });
  await env.settle();
  assert.equal(room.members.length, 1);
  assert.equal(room.seq, server.room.seq);
  assert.deepEqual(heardOf('chat').map(({ text }) => text), ['after it']);
  assert.equal(server.receivedOf('REQUEST_SYNC').length, 1);
});

test('an unanswered REQUEST_SYNC is asked again', async () => {
  const { env, server } = await joinedRoom();
  server.answersSync = false;
  server.room.seq += 1;
  server.commit({ type: 'GUEST_CONTROL', enabled: true });
  await env.advance(5100);
  assert.equal(server.receivedOf('REQUEST_SYNC').length, 2);
});

test('an event of another epoch is a gap too', async () => {
  const { env, server, room } = await joinedRoom();
  server.room.epoch = 200;
  server.room.seq = 0;
  server.room.guestControlEnabled = true;
  server.commit({ type: 'GUEST_CONTROL', enabled: true });
  await env.settle();
  assert.equal(server.receivedOf('REQUEST_SYNC').length, 1);
  assert.deepEqual([room.epoch, room.seq, room.guestControl], [200, 1, true]);
});

test('ROOM_STATE twice is as once', async () => {
  const { env, server, room, heardOf } = await roomWithBob();
  const status = { slot: 2, seq: 7, transport: 'webtransport', rttMs: 12, driftMs: 3, clockErrorMs: null, buffering: true, inCall: true };
  server.line.deliverCompact(encodeStatus(status));
  server.line.deliverCompact(encodeStatus({ ...status, seq: 6, driftMs: 400, inCall: false }));
  await env.settle();
  const { rttMs, driftMs, buffering, inCall, transport } = room.members[1];
  assert.deepEqual([rttMs, driftMs, buffering, inCall, transport], [12, 3, true, true, 'webtransport'], 'one that was overtaken says nothing');
  const before = JSON.stringify([room.members, room.playback, room.seq, room.url]);
  const playbacks = heardOf('playback').length;
  server.line.deliver({ ...server.room, resumeToken: undefined });
  await env.settle();
  assert.equal(JSON.stringify([room.members, room.playback, room.seq, room.url]), before);
  assert.equal(heardOf('playback').length, playbacks, 'a vector that did not change is no news');
});

const DIGEST = { members: 40, audience: 1164, measured: 1180, inStep: 1170, buffering: 3, p50Ms: 3, p95Ms: 17, standOuts: [] };

test('in a large room only those who stand out are known, until it is small again', async () => {
  const { env, server, room, heardOf } = await roomWithBob();
  const cy = { userId: 'cy', peerId: 'cy', username: 'Cy', slot: 3, protocol: 3, transport: 'websocket' };
  server.commit({ type: 'USER_JOINED', ...cy });
  const status = { seq: 7, transport: 'webtransport', rttMs: 12, driftMs: 3, clockErrorMs: 1, buffering: false, inCall: false };
  for (const slot of [2, 3]) server.line.deliverCompact(encodeStatus({ ...status, slot }));
  room.sendStatus({ driftMs: 5, buffering: false });
  await env.settle();
  assert.equal(room.digest, null);
  server.line.deliverCompact(encodeDigest({ ...DIGEST, standOuts: [{ slot: 3, buffering: true, inCall: true, driftMs: -400 }, { slot: 99, buffering: true, inCall: false, driftMs: null }] }));
  await env.settle();
  const shown = room.members.map(({ userId, driftMs, rttMs, buffering, inCall }) => [userId, driftMs, rttMs, buffering, inCall]);
  assert.deepEqual(shown, [['ann', 5, 10, false, false], ['bob', null, null, false, false], ['cy', -400, null, true, true]]);
  const { standOuts, ...counts } = DIGEST;
  assert.deepEqual(room.digest, { watching: 1204, ...counts, standOuts: ['cy'] });
  assert.deepEqual(heardOf('digest'), [room.digest]);
  await env.advance(3000);
  server.line.deliverCompact(encodeDigest(DIGEST));
  await env.advance(3000);
  assert.equal(room.digest?.watching, 1204);
  assert.equal(room.members[2].buffering, false, 'it stands out no more');
  await env.advance(1000);
  assert.equal(room.digest, null);
});

test('a lost connection knows no digest', async () => {
  const { env, server, room } = await joinedRoom();
  server.line.deliverCompact(encodeDigest(DIGEST));
  await env.settle();
  assert.ok(room.digest);
  server.line.end(1006);
  await env.settle();
  assert.equal(room.digest, null);
});

test('many changes in one turn are one change event', async () => {
  const { env, server, heardOf } = await joinedRoom();
  const before = heardOf('change').length;
  server.commit({ type: 'GUEST_CONTROL', enabled: true });
  server.commit({ type: 'PIN_CHANGED', hasPin: true });
  server.commit({ type: 'GUEST_CONTROL', enabled: false });
  await env.settle();
  assert.equal(heardOf('change').length, before + 1);
});

test('unknown messages and fields are ignored', async () => {
  const { env, server, room } = await joinedRoom();
  server.line.deliver({ type: 'FUTURE', x: 1, timestamp: 1 });
  server.commit({ type: 'FUTURE_EVENT', whatever: { deep: true } });
  server.line.onmessage({ data: 'not json' });
  server.line.onmessage({ data: 'null' });
  server.line.deliverCompact(new Uint8Array([9, 9, 9]));
  server.commit({ type: 'GUEST_CONTROL', enabled: true });
  await env.settle();
  assert.equal(room.guestControl, true);
  assert.equal(server.receivedOf('REQUEST_SYNC').length, 0);
});

test('a command resolves with its place in the order, and is refused with its code', async () => {
  const { env, server, room } = await joinedRoom();
  const ok = room.play(3);
  const refused = room.kick('nobody');
  refused.catch(() => {});
  await env.settle();
  const [play, kick] = server.received.slice(-2);
  assert.deepEqual([play.type, play.control, play.currentTime], ['PLAY_PAUSE', 'play', 3]);
  server.line.deliver({ type: 'ACK', ref: play.ref, epoch: 100, seq: 5, timestamp: 1 });
  server.line.deliver({ type: 'ERROR', ref: kick.ref, code: 'TARGET_GONE', message: 'not here', request: 'KICK' });
  assert.deepEqual((await outcome(env, ok)).value, { epoch: 100, seq: 5 });
  assert.equal((await outcome(env, refused)).code, 'TARGET_GONE');
});

test('a position of the caller is sent as it is, the own one of a room that moves with the moment it was true', async () => {
  const { env, server, room } = await joinedRoom();
  room.play();
  await env.settle();
  assert.equal('eventTimestamp' in server.received.at(-1), false, 'a film that stands still is there at any time');
  server.commit({ type: 'PLAY_PAUSE', userId: 'ann', control: 'play', playback: { position: 9, rate: 1, playing: true, at: server.roomTime() } });
  room.pause();
  room.pause(7);
  await env.settle();
  const [own, given] = server.received.slice(-2);
  assert.ok(Math.abs(own.eventTimestamp - server.roomTime()) < 5);
  assert.equal('eventTimestamp' in given, false);
});

test('a request in flight when the line is cut is rejected, never lost', async () => {
  const { env, server, room } = await joinedRoom();
  const request = room.chat('hello?');
  server.line.end(1006);
  assert.equal((await outcome(env, request)).code, 'DISCONNECTED');
  assert.equal((await outcome(env, room.chat('anyone?'))).code, 'DISCONNECTED');
});

test('a request that is never answered times out', async () => {
  const { env, room } = await joinedRoom();
  const request = room.chat('hello?');
  request.catch(() => {});
  await env.advance(10_000);
  assert.equal((await outcome(env, request)).code, 'TIMEOUT');
});

test('an error that no promise waits for is an event; one of a signal to somebody gone is not worth one', async () => {
  const { env, server, heardOf } = await joinedRoom();
  server.line.deliver({ type: 'ERROR', code: 'BAD_MESSAGE', message: 'what?' });
  server.line.deliver({ type: 'ERROR', code: 'TARGET_GONE', message: 'not here', request: 'ICE_CANDIDATE' });
  await env.settle();
  assert.deepEqual(heardOf('error').map(({ code }) => code), ['BAD_MESSAGE']);
});

test('ticks place members, the newest wins, a reloaded sender is heard again', async () => {
  const { env, server, room, heardOf } = await roomWithBob();
  const tick = (seq, position) => server.line.deliverCompact(encodeTick({ slot: 2, seq, position, at: 5, rate: 1, playing: true, fromHost: false }));
  tick(10, 1);
  tick(9, 99);
  tick(10, 99);
  assert.equal(room.members[1].position, 1);
  server.commit({ type: 'MEMBER_CONNECTION', userId: 'bob', connected: true, graceUntil: null, transport: 'websocket' });
  tick(1, 2);
  await env.settle();
  assert.equal(room.members[1].position, 2);
  assert.equal(room.members[1].transport, 'websocket');
  assert.equal(heardOf('tick').length, 2);
});

test('secrets stay out of the event log', async () => {
  const env = new FakeEnv();
  const log = [];
  const { room } = openRoom({ env, pin: '4711' });
  room.addEventListener('message', ({ detail }) => log.push(detail));
  await room.ready;
  const text = JSON.stringify(log);
  assert.ok(log.some(({ direction, message }) => direction === 'out' && message.type === 'JOIN'));
  assert.ok(!text.includes('4711') && !text.includes('token-1'), text);
});

test('the membership is resumed with its token, and missed chat is delivered once', async () => {
  const { env, server, room, heardOf } = await joinedRoom();
  server.commit({ type: 'CHAT', userId: 'ann', username: 'Ann', text: 'one' });
  await env.settle();
  server.line.end(1006);
  server.room.seq += 2;
  server.room.resumeToken = 'token-2';
  await env.until('the room is joined again', () => room.state === 'joined');
  const [, rejoin] = server.receivedOf('JOIN');
  assert.deepEqual([rejoin.resumeToken, rejoin.epoch, rejoin.lastSeq], ['token-1', 100, 5]);
  const line = { type: 'CHAT', userId: 'bob', username: 'Bob', epoch: 100, timestamp: 1 };
  server.line.deliver({ ...line, seq: 5, text: 'one' });
  server.line.deliver({ ...line, seq: 6, text: 'two' });
  server.line.deliver({ ...line, seq: 7, text: 'three' });
  server.line.deliver({ ...line, seq: 7, text: 'three' });
  await env.settle();
  assert.deepEqual(heardOf('chat').map(({ text }) => text), ['one', 'two', 'three']);
  assert.deepEqual(heardOf('state'), ['joined', 'reconnecting', 'joined']);
});

test("a newcomer hears the chat's last lines, once, and that they are old", async () => {
  const { env, server, heardOf } = await joinedRoom({ setup: ({ room }) => (room.seq = 9) });
  const line = { type: 'CHAT', userId: 'bob', username: 'Bob', epoch: 100, timestamp: 1, replayed: true };
  for (const seq of [4, 7, 7]) server.line.deliver({ ...line, seq, text: `line ${seq}` });
  await env.settle();
  assert.deepEqual(heardOf('chat').map(({ text, replayed }) => [text, replayed]), [['line 4', true], ['line 7', true]]);
});

test('a reloaded page is the same member', async () => {
  const storage = new FakeStorage();
  const first = await joinedRoom({ storage, userId: undefined });
  first.env.page('pagehide');
  const { server } = await joinedRoom({ storage, userId: undefined });
  const [join] = server.receivedOf('JOIN');
  assert.deepEqual([join.userId, join.resumeToken, join.epoch, join.lastSeq], ['made-up-1', 'token-1', 100, 4]);
});

test('storage that throws costs nothing but memory', async () => {
  const broken = { getItem() { throw new Error('no'); }, setItem() { throw new Error('full'); }, removeItem() { throw new Error('no'); } };
  const { room } = await joinedRoom({ storage: broken, userId: undefined });
  assert.equal(room.state, 'joined');
});

test('a token that the server does not know any more is dropped, and the room joined anew', async () => {
  const { env, server, room } = await joinedRoom();
  server.refuseJoin = ({ resumeToken }) => resumeToken && { code: 'TOKEN_INVALID' };
  server.line.end(1006);
  await env.until('the room is joined again', () => room.state === 'joined');
  assert.equal(server.receivedOf('JOIN').at(-1).resumeToken, undefined);
});

test('a made-up userId that is taken is replaced, a given one is not', async () => {
  const env = new FakeEnv();
  const server = new FakeServer(env);
  server.refuseJoin = ({ userId }) => userId === 'made-up-1' && { code: 'USER_ID_TAKEN' };
  const { room } = openRoom({ env, server, userId: undefined });
  await room.ready;
  assert.equal(server.receivedOf('JOIN').at(-1).userId, 'made-up-2');

  const given = openRoom();
  given.server.refuseJoin = { code: 'USER_ID_TAKEN' };
  await assert.rejects(given.room.ready, { code: 'USER_ID_TAKEN' });
  assert.equal(given.server.receivedOf('JOIN').length, 1);
});

test('a room with a PIN can be tried again with another one', async () => {
  const { env, server, room, heardOf } = openRoom();
  server.refuseJoin = ({ pin }) => (pin === undefined ? { code: 'PIN_REQUIRED' } : pin !== '4711' && { code: 'PIN_WRONG' });
  await assert.rejects(room.ready, { code: 'PIN_REQUIRED' });
  assert.equal(room.state, 'closed');
  await assert.rejects(room.retryWithPin('0000'), { code: 'PIN_WRONG' });
  await room.retryWithPin('4711');
  assert.equal(room.state, 'joined');
  assert.deepEqual(heardOf('closed').map(({ code, retry }) => [code, retry]), [['PIN_REQUIRED', true], ['PIN_WRONG', true]]);
  await env.settle();
});

test('DEGRADED is told and taken back; the room goes on', async () => {
  const { env, server, room } = await joinedRoom();
  server.line.deliver({ type: 'DEGRADED', degraded: true, timestamp: 1 });
  await env.settle();
  assert.equal(room.degraded, true);
  server.line.deliver({ type: 'DEGRADED', degraded: false, timestamp: 1 });
  await env.settle();
  assert.equal(room.degraded, false);
});

test('leave says so, waits a moment for the server to close, and is final', async () => {
  const { env, server, room, heardOf } = await joinedRoom();
  const request = room.chat('bye');
  room.leave();
  assert.equal((await outcome(env, request)).code, 'CLOSED');
  assert.equal(server.received.at(-1).type, 'LEAVE');
  assert.equal(server.line.closedWith, null);
  await env.advance(1000);
  assert.equal(server.line.closedWith.code, 1000);
  assert.deepEqual(heardOf('closed'), [{ code: 1000, reason: 'left', retry: false }]);
  await env.advance(60_000);
  assert.equal(server.lines.length, 1);
  assert.equal(env.pending, 0, 'no timer survives the room');
});

test('detach ends the connection without a LEAVE, and the next one takes the seat over', async () => {
  const env = new FakeEnv();
  const server = new FakeServer(env);
  const storage = new FakeStorage();
  const { room, heardOf } = await joinedRoom({ env, server, storage });
  room.detach();
  await env.settle();
  assert.equal(room.state, 'closed');
  assert.deepEqual(heardOf('closed'), [{ code: 4004, reason: 'detached', retry: false }]);
  assert.equal(server.receivedOf('LEAVE').length, 0);
  await joinedRoom({ env, server, storage });
  const [first, second] = server.receivedOf('JOIN');
  assert.equal(first.resumeToken, undefined);
  assert.equal(typeof second.resumeToken, 'string');
  await env.advance(60_000);
  assert.equal(server.receivedOf('JOIN').length, 2, 'the detached one does not come back');
});
