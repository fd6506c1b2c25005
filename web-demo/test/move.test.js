import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeEnv } from './support/fake-env.js';
import { FakeServer } from './support/fake-server.js';
import { joinedRoom, outcome } from './support/room-harness.js';

const MOST = 8192;

/** Ann in a room over WebTransport, in a browser whose sessions hear little; the test answers JOIN {move} itself. */
async function annOnWebKit(options = {}) {
  const env = Object.assign(new FakeEnv(), { webkit: true, mostReceived: MOST, ...options.env });
  const server = new FakeServer(env);
  const harness = await joinedRoom({ transport: 'webtransport', ...options, env, server });
  server.answersJoin = false;
  const [old] = server.lines;
  const said = (line, type) => line.received.filter((message) => message.type === type);
  return {
    ...harness,
    old,
    said,
    get fresh() {
      return server.lines[1];
    },
    chat(line, text) {
      server.room.seq += 1;
      line.deliver({ type: 'CHAT', userId: 'bob', username: 'Bob', text, timestamp: 1, epoch: 100, seq: server.room.seq });
    },
    /** Uses the credit up. */
    async wear() {
      for (let left = MOST; left > 0; left -= 1000) this.chat(old, 'x'.repeat(1000));
      await env.settle();
    },
    /** What the server says of the move on the old session: the event, then its end. */
    replaced(line) {
      line.deliver({ type: 'SESSION_CHANGED', userId: 'ann', transport: 'webtransport', timestamp: 1, epoch: 100, seq: server.room.seq });
      line.deliver({ type: 'CLOSING', code: 4005, reason: 'superseded', timestamp: 1 });
      line.end(4005, 'superseded');
    },
    admit(line, { resumeToken = 'token-2' } = {}) {
      line.deliver({ ...server.room, resumeToken, roomTime: server.roomTime() });
    },
  };
}

test('a WebKit client moves to a fresh session before its credit is used up, and nobody notices', async () => {
  const ann = await annOnWebKit();
  const { env, server, room, heard, heardOf } = ann;
  heard.length = 0;
  await ann.wear();
  // JOIN follows everything that the old session was told: it has answered the PING.
  const [join] = ann.said(ann.fresh, 'JOIN');
  assert.equal(join.move, true);
  assert.equal(join.fallback, 'credit');
  assert.equal(join.resumeToken, 'token-1');
  assert.equal(join.lastSeq, server.room.seq);
  assert.equal(room.state, 'joined');
  // The fresh session is in the room first, and talks on; the old one has not said everything yet.
  ann.chat(ann.old, 'late');
  server.room.seq += 1;
  ann.admit(ann.fresh);
  ann.chat(ann.fresh, 'early');
  await env.settle();
  assert.deepEqual(heardOf('chat').map(({ text }) => text).filter((text) => text.length < 10), ['late']);
  server.room.seq -= 1;
  ann.replaced(ann.old);
  server.room.seq += 1;
  await env.settle();
  assert.deepEqual(heardOf('chat').map(({ text }) => text).filter((text) => text.length < 10), ['late', 'early']);
  assert.deepEqual(heardOf('state'), []);
  assert.deepEqual(heardOf('closed'), []);
  assert.deepEqual(heardOf('error'), []);
  assert.equal(server.receivedOf('REQUEST_SYNC').length, 0);
  assert.equal(room.seq, server.room.seq);
  // It goes on over the fresh one.
  room.chat('hello').catch(() => {});
  await env.settle();
  assert.deepEqual(ann.said(ann.fresh, 'CHAT').map(({ text }) => text), ['hello']);
  assert.equal(server.lines.length, 2);
});

test('a message of the old session is answered before the move, and one that comes meanwhile waits for the fresh one', async () => {
  const ann = await annOnWebKit();
  const { env, server, room } = ann;
  const before = room.chat('before');
  await ann.wear();
  // The old session took the PING, but has not answered the chat.
  assert.deepEqual(ann.said(ann.fresh, 'JOIN'), []);
  const during = room.chat('during');
  room.custom('org.example', 1, 'bob');
  await env.settle();
  assert.deepEqual(ann.said(ann.old, 'CHAT').map(({ text }) => text), ['before']);
  const [{ ref }] = ann.said(ann.old, 'CHAT');
  ann.old.deliver({ type: 'ACK', ref, epoch: 100, seq: server.room.seq, timestamp: 1 });
  await env.settle();
  assert.equal((await outcome(env, before)).status, 'fulfilled');
  assert.equal(ann.said(ann.fresh, 'JOIN').length, 1);
  server.room.seq += 1;
  ann.admit(ann.fresh);
  ann.replaced(ann.old);
  await env.settle();
  assert.deepEqual(ann.fresh.received.map(({ type }) => type).filter((type) => type !== 'PING'), ['JOIN', 'CHAT', 'CUSTOM']);
  assert.deepEqual(ann.said(ann.old, 'CHAT').length, 1);
  ann.fresh.deliver({ type: 'ACK', ref: ann.said(ann.fresh, 'CHAT')[0].ref, epoch: 100, seq: server.room.seq, timestamp: 1 });
  assert.equal((await outcome(env, during)).status, 'fulfilled');
});

test('the end of the old session that overtakes ROOM_STATE ends nothing', async () => {
  const ann = await annOnWebKit();
  const { env, server, room, heardOf } = ann;
  await ann.wear();
  server.room.seq += 1;
  ann.replaced(ann.old);
  await env.settle();
  assert.equal(room.state, 'joined');
  ann.admit(ann.fresh);
  await env.settle();
  assert.deepEqual([room.state, room.transport, heardOf('closed').length], ['joined', 'webtransport', 0]);
  ann.chat(ann.fresh, 'on');
  await env.settle();
  assert.equal(heardOf('chat').at(-1).text, 'on');
});

test('an old session that stalls is given up after three seconds, and its chat comes again', async () => {
  const ann = await annOnWebKit();
  const { env, server, heardOf } = ann;
  await ann.wear();
  server.room.seq += 2;
  ann.admit(ann.fresh);
  const chat = { type: 'CHAT', userId: 'bob', username: 'Bob', timestamp: 1, epoch: 100 };
  ann.fresh.deliver({ ...chat, text: 'missed', seq: server.room.seq - 1, replayed: true });
  await env.advance(2900);
  assert.notEqual(heardOf('chat').at(-1).text, 'missed');
  await env.advance(200);
  assert.equal(heardOf('chat').at(-1).text, 'missed');
  assert.notEqual(ann.old.closedWith, null);
});

test('a move that does not come about leaves the session as it is, and is tried again', async () => {
  const ann = await annOnWebKit();
  const { env, server, room, heardOf } = ann;
  server.behaviour.webtransport = 'fails';
  await ann.wear();
  assert.equal(room.state, 'joined');
  server.behaviour.webtransport = 'opens';
  server.refuseJoin = { code: 'UNAVAILABLE' };
  await env.advance(5000);
  ann.chat(ann.old, 'more');
  await env.settle();
  assert.equal(ann.said(ann.fresh, 'JOIN').length, 1);
  const chat = room.chat('kept');
  await env.settle();
  assert.deepEqual([room.state, heardOf('closed').length, heardOf('error').length], ['joined', 0, 0]);
  assert.deepEqual(ann.said(ann.old, 'CHAT').map(({ text }) => text), ['kept']);
  ann.old.deliver({ type: 'ACK', ref: ann.said(ann.old, 'CHAT')[0].ref, epoch: 100, seq: server.room.seq, timestamp: 1 });
  assert.equal((await outcome(env, chat)).status, 'fulfilled');
});

test('a fresh session that is lost after JOIN costs a reconnection, not the membership', async () => {
  const ann = await annOnWebKit();
  const { env, server, room, heardOf } = ann;
  await ann.wear();
  ann.fresh.end(0);
  server.room.seq += 1;
  await env.settle();
  // The server had moved the member: it closes the old session as replaced.
  server.answersJoin = true;
  ann.replaced(ann.old);
  await env.advance(2000);
  assert.deepEqual([room.state, heardOf('closed').length], ['joined', 0]);
  assert.equal(server.lines.length, 3);
  assert.equal(ann.said(server.lines[2], 'JOIN')[0].resumeToken, 'token-1');
});

test('leaving in the middle of a move leaves on both sessions', async () => {
  const ann = await annOnWebKit();
  await ann.wear();
  ann.room.leave();
  await ann.env.settle();
  assert.equal(ann.said(ann.old, 'LEAVE').length, 1);
  assert.equal(ann.said(ann.fresh, 'LEAVE').length, 1);
});

test('other browsers, and WebSocket, never move', async () => {
  for (const [kind, webkit] of [['webtransport', false], ['websocket', true]]) {
    const ann = await annOnWebKit({ env: { webkit }, transport: kind });
    await ann.wear();
    await ann.env.advance(1000);
    assert.equal(ann.server.lines.length, 1, kind);
  }
});
