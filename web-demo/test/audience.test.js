import assert from 'node:assert/strict';
import { test } from 'node:test';
import { joinedRoom } from './support/room-harness.js';

/** The room's answer to a viewer: no slot, no token, and the number of those who watch. */
function seats(server) {
  Object.assign(server.room, { role: 'audience', audience: 3, userId: 'eve', slot: null, resumeToken: null, sessionId: 's-7' });
}

const watching = (options) => joinedRoom({ userId: 'eve', username: 'Eve', setup: seats, ...options });

test('in a full room one is audience: no member, without control, whoever may control', async () => {
  const { env, server, room } = await watching();
  assert.deepEqual([room.role, room.audience, room.self.slot], ['audience', 3, null]);
  assert.equal(room.self.canControl, false);
  server.commit({ type: 'GUEST_CONTROL', enabled: true });
  await env.settle();
  assert.equal(room.self.canControl, false, 'guest control is the members’');
  room.sendTick({ position: 1, at: 1, playing: true, rate: 1 });
  assert.equal(room.sendPlayer({ state: 'ready' }), false);
  room.sendStatus({ driftMs: 3, buffering: false });
  await env.settle();
  assert.deepEqual(server.receivedOf('PLAYER'), []);
  const sent = server.line.compact.map(({ kind }) => kind);
  assert.equal(sent.includes('tick'), false);
  assert.equal(sent.includes('status'), true, 'for the digest');
});

test('events that only members need leave no gap', async () => {
  const { env, server, room } = await watching();
  server.room.seq += 4;
  server.line.deliver({ type: 'PASSED', events: 4, epoch: server.room.epoch, seq: server.room.seq });
  server.commit({ type: 'PIN_CHANGED', hasPin: true });
  server.line.deliver({ type: 'AUDIENCE', count: 1204 });
  await env.settle();
  assert.deepEqual([room.seq, room.hasPin, room.audience], [9, true, 1204]);
  assert.deepEqual(server.receivedOf('REQUEST_SYNC'), []);
  server.line.deliver({ type: 'PASSED', events: 2, epoch: server.room.epoch, seq: server.room.seq + 3 });
  await env.settle();
  assert.equal(server.receivedOf('REQUEST_SYNC').length, 1, 'one is missing before those two');
});

test('a viewer comes back as one by joining again, and asks as one from the start if the page says so', async () => {
  const { env, server } = await watching();
  assert.equal(server.receivedOf('JOIN')[0].as, undefined);
  server.line.end(4003, 'did not read');
  await env.advance(5000);
  const [, again] = server.receivedOf('JOIN');
  assert.deepEqual([again.as, again.resumeToken], ['viewer', undefined]);
  const other = await watching({ as: 'viewer' });
  assert.equal(other.server.receivedOf('JOIN')[0].as, 'viewer');
});

test('a raised hand is confirmed, and who is let in is a member from then on', async () => {
  const { env, server, room } = await watching();
  await room.raiseHand();
  assert.deepEqual(server.receivedOf('RAISE_HAND').map(({ raised }) => raised), [true]);
  assert.equal(room.handRaised, false, 'not before the server says so');
  server.line.deliver({ type: 'HAND', userId: 'eve', username: 'Eve', raised: true });
  await env.settle();
  assert.equal(room.handRaised, true);
  const EVE = { userId: 'eve', username: 'Eve', slot: 9, connected: true, protocol: 3, transport: 'websocket', joinedAt: 9 };
  server.commit({ type: 'USER_JOINED', ...EVE });
  server.room.users.push(EVE);
  server.line.deliver({ ...server.room, role: 'member', audience: 2, slot: 9, resumeToken: 'token-9' });
  await env.settle();
  assert.deepEqual([room.role, room.self.slot, room.handRaised, room.audience], ['member', 9, false, 2]);
  server.line.end(4003, 'did not read');
  await env.advance(5000);
  const again = server.receivedOf('JOIN').at(-1);
  assert.deepEqual([again.as, again.resumeToken], [undefined, 'token-9']);
});

test('the host sees raised hands, lets in or not now, and a new host sees none of the old one’s', async () => {
  const { env, server, room } = await joinedRoom();
  server.line.deliver({ type: 'HAND', userId: 'eve', username: 'Eve', raised: true });
  server.line.deliver({ type: 'HAND', userId: 'zoe', username: 'Zoe', raised: true });
  server.line.deliver({ type: 'HAND', userId: 'zoe', username: 'Zoe', raised: false });
  await env.settle();
  assert.deepEqual(room.hands, [{ userId: 'eve', username: 'Eve' }]);
  await room.invite('eve');
  await room.declineHand('eve');
  assert.deepEqual(server.receivedOf('INVITE_TO_MEMBER').map(({ targetUserId, decline }) => [targetUserId, decline]), [['eve', undefined], ['eve', true]]);
  server.commit({ type: 'HOST_CHANGED', hostUserId: 'bob' });
  await env.settle();
  assert.deepEqual(room.hands, []);
});

test('the state that is for the whole audience keeps who one is', async () => {
  const { env, server, room } = await watching();
  server.line.deliver({ ...server.room, userId: null, sessionId: null, hasPin: true });
  await env.settle();
  assert.deepEqual([room.self.userId, room.role, room.hasPin], ['eve', 'audience', true]);
});
