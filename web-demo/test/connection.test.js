import assert from 'node:assert/strict';
import { test } from 'node:test';
import { FakeEnv, FakeStorage, testSeed } from './support/fake-env.js';
import { FakeServer } from './support/fake-server.js';
import { joinedRoom, openRoom } from './support/room-harness.js';

const kinds = (server) => server.attempts.map(({ kind }) => kind);

function open(behaviour = {}, options = {}) {
  const env = options.env ?? new FakeEnv();
  const server = new FakeServer(env);
  Object.assign(server.behaviour, behaviour);
  return openRoom({ env, server, transport: 'auto', ...options });
}

function later(hours) {
  const env = new FakeEnv();
  env.wallOffset += hours * 3600 * 1000;
  return env;
}

test('WebTransport wins where it works, and WebSocket is not even tried', async () => {
  const { env, server, room } = open();
  await room.ready;
  await env.advance(2000);
  assert.equal(room.transport, 'webtransport');
  assert.deepEqual(kinds(server), ['webtransport']);
});

test('the WebTransport session pins the self-signed certificate and asks for low latency', async () => {
  const { server, room } = open();
  await room.ready;
  const { options } = server.attempts[0];
  assert.equal(options.congestionControl, 'low-latency');
  assert.deepEqual(options.serverCertificateHashes, [{ algorithm: 'sha-256', value: Uint8Array.of(1, 2, 3) }]);
  assert.equal(server.line.datagrams.incomingHighWaterMark, 64);
});

test('where WebTransport hangs, WebSocket starts after a second', async () => {
  const { env, server, room } = open({ webtransport: 'hangs' });
  const began = env.now();
  await env.advance(990);
  assert.deepEqual(kinds(server), ['webtransport']);
  await env.advance(20);
  await room.ready;
  assert.equal(server.attempts[1].at - began, 1000);
  assert.equal(room.transport, 'websocket');
});

test('where WebTransport fails, WebSocket starts at once', async () => {
  const { env, room } = open({ webtransport: 'fails' });
  const began = env.now();
  await room.ready;
  assert.equal(room.transport, 'websocket');
  assert.equal(env.now(), began);
});

test('a browser or a server without WebTransport is no error', async () => {
  const noServer = open();
  noServer.server.endpoints.webtransport = null;
  await noServer.room.ready;
  assert.equal(noServer.room.transport, 'websocket');

  const noBrowser = open();
  noBrowser.env.WebTransport = undefined;
  const { room } = openRoom({ env: noBrowser.env, server: noBrowser.server, transport: 'auto' });
  await room.ready;
  assert.equal(room.transport, 'websocket');
});

test('the winner is remembered for a day, then WebTransport gets another chance', async () => {
  const storage = new FakeStorage();
  const first = open({ webtransport: 'hangs' }, { storage });
  await first.env.advance(1500);
  assert.equal(first.room.transport, 'websocket');

  const second = open({ webtransport: 'hangs' }, { storage, env: later(23) });
  await second.room.ready;
  assert.deepEqual(kinds(second.server), ['websocket'], 'no second lost this time');

  const third = open({}, { storage, env: later(25) });
  await third.room.ready;
  assert.equal(third.room.transport, 'webtransport');
});

test('a remembered winner that fails is not the end', async () => {
  const storage = new FakeStorage();
  const first = open({ webtransport: 'fails' }, { storage });
  await first.room.ready;
  const second = open({ websocket: 'fails' }, { storage });
  await second.room.ready;
  assert.equal(second.room.transport, 'webtransport');
});

test('a JOIN over WebSocket says why it is not WebTransport', async () => {
  const fallback = async ({ env, server, room }) => {
    await env.advance(1500);
    await room.ready;
    return server.receivedOf('JOIN').at(-1).fallback;
  };
  assert.equal(await fallback(open({ webtransport: 'fails' })), 'failed');
  assert.equal(await fallback(open({}, { transport: 'websocket' })), 'chosen');
  assert.equal(await fallback(open()), undefined, 'on WebTransport there is nothing to say');

  const storage = new FakeStorage();
  assert.equal(await fallback(open({ webtransport: 'hangs' }, { storage })), 'slow');
  assert.equal(await fallback(open({}, { storage, env: later(1) })), 'remembered');

  const noServer = open();
  noServer.server.endpoints.webtransport = null;
  assert.equal(await fallback(noServer), 'not_offered');
  const noBrowser = open();
  await noBrowser.room.ready;
  noBrowser.env.WebTransport = undefined;
  assert.equal(await fallback({ ...noBrowser, ...openRoom({ ...noBrowser, transport: 'auto' }) }), 'unsupported');
});

test('a forced transport is the only one tried', async () => {
  const forced = open({ webtransport: 'fails' }, { transport: 'webtransport' });
  await forced.env.advance(3000);
  assert.ok(kinds(forced.server).length > 1);
  assert.ok(kinds(forced.server).every((kind) => kind === 'webtransport'));
  const socket = open({}, { transport: 'websocket' });
  await socket.room.ready;
  assert.deepEqual(kinds(socket.server), ['websocket']);
});

test('the slower transport is closed when it opens after all', async () => {
  const { env, server, room } = open({ webtransport: 'hangs' });
  await env.advance(1100);
  assert.equal(room.transport, 'websocket');
  assert.equal(server.lines.length, 1);
  await env.advance(20_000);
  assert.equal(server.lines.length, 1);
});

for (const transport of ['webtransport', 'websocket']) {
  test(`a lost line is opened anew and the membership resumed (${transport})`, async () => {
    const { env, server, room } = await joinedRoom({ transport });
    server.line.end(4010, 'fault');
    await env.until('the room is joined again', () => room.state === 'joined' && server.lines.length === 2);
    assert.equal(server.receivedOf('JOIN')[1].resumeToken, 'token-1');
  });

  for (const [code, name] of [[1000, 'NORMAL'], [4000, 'PROTOCOL_ERROR'], [4001, 'TOO_BIG'], [4005, 'SUPERSEDED'], [4006, 'KICKED'], [4007, 'BANNED']]) {
    test(`${name} is final (${transport})`, async () => {
      const { env, server, room, heardOf } = await joinedRoom({ transport });
      server.line.end(code, name);
      await env.advance(60_000);
      assert.equal(server.lines.length, 1);
      assert.equal(room.state, 'closed');
      assert.deepEqual(heardOf('closed'), [{ code, reason: name, retry: false }]);
    });
  }

  for (const code of [1001, 1006, 4003, 4004, 4008, 4010]) {
    test(`after ${code} the client comes back soon (${transport})`, async () => {
      const { env, server } = await joinedRoom({ transport });
      server.line.end(code);
      await env.advance(400);
      assert.equal(server.lines.length, 2);
    });
  }

  for (const code of [4002, 4009]) {
    test(`after ${code} the client comes back later (${transport})`, async () => {
      const { env, server } = await joinedRoom({ transport });
      server.line.end(code);
      await env.advance(2400);
      env.page('online');
      assert.equal(server.lines.length, 1);
      await env.advance(2700);
      assert.equal(server.lines.length, 2);
    });
  }
}

test('a refusal that is final is not tried again', async () => {
  for (const code of ['USER_BANNED', 'ROOM_FULL', 'PIN_WRONG', 'BAD_ID', 'PIN_THROTTLED']) {
    const { env, server, room, heardOf } = open();
    server.refuseJoin = { code, retryAfterMs: 100 };
    await assert.rejects(room.ready, { code });
    await env.advance(60_000);
    assert.equal(server.receivedOf('JOIN').length, 1, code);
    assert.equal(room.state, 'closed');
    assert.equal(heardOf('closed').length, 1);
  }
});

test('a refusal that passes is tried again, not before the server said', async () => {
  const { env, server, room } = open();
  server.refuseJoin = { code: 'OVERLOADED', retryAfterMs: 3000 };
  await env.advance(2900);
  assert.equal(server.receivedOf('JOIN').length, 1);
  server.refuseJoin = null;
  await env.advance(200);
  assert.equal(room.state, 'joined');
});

test('backoff grows, is jittered, and is capped at 10 s', async (t) => {
  const env = new FakeEnv({ seed: testSeed(t) });
  const server = new FakeServer(env);
  server.lookupFails = true;
  openRoom({ env, server, keepTrying: true });
  await env.advance(120_000);
  const waits = server.lookups.slice(1).map(({ at }, i) => at - server.lookups[i].at);
  waits.forEach((wait, i) => {
    const ceiling = Math.min(10_000, 300 * 2 ** i);
    assert.ok(wait >= ceiling / 2 - 1 && wait <= ceiling + 1, `wait ${i} is ${wait}, its ceiling ${ceiling}`);
  });
  assert.ok(new Set(waits.slice(-5)).size > 1, 'jitter');
});

test('a join that succeeded starts the backoff from the beginning', async () => {
  const { env, server, room } = await joinedRoom();
  server.lookupFails = true;
  server.line.end(1006);
  await env.advance(30_000);
  server.lookupFails = false;
  await env.until('joined', () => room.state === 'joined');
  const before = server.lines.length;
  server.line.end(1006);
  await env.advance(310);
  assert.equal(server.lines.length, before + 1);
});

test('when the network is back, or the page in front, there is no more waiting', async () => {
  for (const event of ['online', 'visibilitychange']) {
    const { env, server, room } = await joinedRoom();
    server.lookupFails = true;
    server.line.end(1006);
    await env.advance(30_000);
    server.lookupFails = false;
    const waiting = server.lines.length;
    env.page(event);
    await env.settle();
    assert.equal(server.lines.length, waiting + 1, event);
    assert.equal(room.state, 'joined');
  }
});

test('RECONNECT: the session is used until then, and left at the moment given', async () => {
  const { env, server, room } = await joinedRoom();
  server.line.deliver({ type: 'RECONNECT', afterMs: 4000, timestamp: 1 });
  await env.advance(3900);
  assert.equal(room.state, 'joined');
  assert.equal(server.lines.length, 1);
  await env.advance(200);
  assert.equal(server.lines.length, 2);
  assert.equal(room.state, 'joined');
  assert.equal(server.receivedOf('JOIN')[1].resumeToken, 'token-1');
});

test('RECONNECT: a server that closes before that is not run down earlier, not even when told "online"', async () => {
  const { env, server } = await joinedRoom();
  server.line.deliver({ type: 'RECONNECT', afterMs: 4000, timestamp: 1 });
  await env.advance(100);
  server.line.end(1001, 'stops');
  env.page('online');
  await env.advance(3800);
  assert.equal(server.lines.length, 1);
  await env.advance(150);
  assert.equal(server.lines.length, 2);
});

test('a PING goes out every 5 s', async () => {
  const { env, server } = await joinedRoom();
  await env.advance(20_000);
  assert.equal(server.receivedOf('PING').length, 4);
});

test('a line on which nothing is heard for 12 s is dropped, also while there is no other one', async () => {
  const { env, server, room } = await joinedRoom();
  server.line.cut = server.lookupFails = true;
  server.behaviour.websocket = 'fails';
  await env.advance(11_400);
  assert.equal(room.state, 'joined');
  await env.advance(1000);
  assert.equal(room.state, 'reconnecting');
  assert.equal(server.lines[0].closedWith.code, 4004);
});

test('a page that was frozen reads its mail before it gives the line up', async () => {
  const { env, server, room } = await joinedRoom();
  env.time += 60_000; // No timer ran, nothing was read.
  await env.advance(1000);
  assert.equal(room.state, 'joined');
  assert.equal(server.lines.length, 1);
});

test('a JOIN that nobody answers is given up', async () => {
  const { env, server } = open({}, { keepTrying: true });
  server.answersJoin = false;
  await env.advance(10_500);
  assert.equal(server.lines.length, 2);
});
