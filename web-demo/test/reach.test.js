/** How a client reaches its server: reports of failure, choice of addresses, seats of tabs. */
import assert from 'node:assert/strict';
import { createHash } from 'node:crypto';
import { test } from 'node:test';
import { FakeEnv, FakeStorage } from './support/fake-env.js';
import { FakeLocks } from './support/fake-locks.js';
import { joinedRoom, openRoom, outcome } from './support/room-harness.js';

function world(setup, options = {}) {
  return openRoom({ setup, transport: 'auto', ...options });
}

// ---- it settles ----

test('a server that is down: ready rejects within 10 s, says why, and nothing is tried any more', async () => {
  const { env, server, room, heardOf } = world((server) => (server.lookupFails = true));
  await env.advance(10_000);
  const { status, error } = await outcome(env, room.ready);
  assert.equal(status, 'rejected');
  assert.equal(error.code, 'UNREACHABLE');
  assert.match(error.message, /https:\/\/tandem\.test:4433\/api\/transports can't be read: network error.*certificate/);
  assert.equal(heardOf('error')[0], error);
  assert.equal(heardOf('closed')[0].code, 'UNREACHABLE');
  const tried = server.lookups.length;
  await env.advance(60_000);
  assert.equal(server.lookups.length, tried);
  assert.equal(env.pending, 0);
});

test('a server that is no address is refused with a code, at once', () => {
  for (const address of ['not a url', '', 'tandem.example:4433', '/watch/', 'ws://tandem.test']) {
    const said = (error) => error.name === 'TandemError' && error.code === 'BAD_SERVER' && error.message.includes(JSON.stringify(address));
    assert.throws(() => world(undefined, { address }), said, address);
  }
});

test('a lookup that hangs is no reason to wait longer', async () => {
  const { env, room } = world((server) => (server.lookupHangs = true));
  await env.advance(10_000);
  assert.equal((await outcome(env, room.ready)).code, 'UNREACHABLE');
});

test('a server whose transports don’t open, or that doesn’t answer JOIN, is reported as well', async () => {
  const hangs = world((server) => (server.behaviour = { webtransport: 'hangs', websocket: 'hangs' }));
  await hangs.env.advance(10_000);
  assert.equal((await outcome(hangs.env, hangs.room.ready)).code, 'UNREACHABLE');
  const mute = world((server) => (server.answersJoin = false));
  await mute.env.advance(10_000);
  assert.equal((await outcome(mute.env, mute.room.ready)).code, 'TIMEOUT');
  const full = world((server) => (server.refuseJoin = { code: 'OVERLOADED', retryAfterMs: 4000 }));
  await full.env.advance(10_000);
  assert.equal((await outcome(full.env, full.room.ready)).code, 'OVERLOADED');
});

test('an origin that is refused, and an environment without any transport, are said at once', async () => {
  const refused = world((server) => (server.refusesOrigin = true));
  await refused.env.settle();
  assert.equal((await outcome(refused.env, refused.room.ready)).code, 'ORIGIN_REFUSED');
  const bare = world((_, env) => Object.assign(env, { WebSocket: undefined, WebTransport: undefined }));
  await bare.env.settle();
  const { code, error } = await outcome(bare.env, bare.room.ready);
  assert.equal(code, 'NO_TRANSPORT');
  assert.match(error.message, /Node/);
});

test('keepTrying: ready rejects all the same, room.ready is a new promise, and the room is joined when the server is back', async () => {
  const { env, server, room, heardOf } = world((server) => (server.lookupFails = true), { keepTrying: true });
  const first = room.ready;
  await env.advance(60_000);
  assert.equal((await outcome(env, first)).code, 'UNREACHABLE');
  assert.equal(heardOf('error').length, 1, 'said once');
  assert.equal(room.state, 'connecting');
  server.lookupFails = false;
  await env.advance(10_000);
  await room.ready;
  assert.equal(room.state, 'joined');
});

test('once it was joined, an outage of any length is no end', async () => {
  const { env, server, room } = await joinedRoom();
  server.lookupFails = true;
  server.line.end(1006);
  await env.advance(600_000);
  assert.equal(room.state, 'reconnecting');
  server.lookupFails = false;
  await env.advance(10_000);
  assert.equal(room.state, 'joined');
});

// ---- the end, in order ----

for (const transport of ['webtransport', 'websocket']) {
  for (const [code, reason] of [[4005, 'superseded'], [4006, 'kicked'], [4007, 'banned'], [4000, 'protocol']]) {
    test(`CLOSING ${code} is the end although the transport loses the code (${transport})`, async () => {
      const { env, server, room, heardOf } = await joinedRoom({ transport });
      server.line.deliver({ type: 'CLOSING', code, reason, timestamp: 1 });
      await env.settle();
      server.line.end(1006);
      await env.advance(60_000);
      assert.equal(room.state, 'closed');
      assert.deepEqual(heardOf('closed'), [{ code, reason, retry: false }]);
      assert.equal(server.lines.length, 1);
      assert.equal(server.line.closedWith.code, code, 'the client closes first');
    });
  }

  for (const [reason, code] of [['kicked', 4006], ['banned', 4007]]) {
    test(`one's own USER_LEFT ${reason} is the end whatever the transport says (${transport})`, async () => {
      const { env, server, room, heardOf } = await joinedRoom({ transport });
      server.commit({ type: 'USER_LEFT', userId: 'ann', peerId: 'ann', reason });
      await env.settle();
      server.line.end(1006);
      await env.advance(60_000);
      assert.equal(room.state, 'closed');
      assert.equal(heardOf('closed')[0].code, code);
      assert.equal(server.lines.length, 1);
    });
  }

  test(`after CLOSING 4009 and a lost code the client comes back later (${transport})`, async () => {
    const { env, server } = await joinedRoom({ transport });
    server.line.deliver({ type: 'CLOSING', code: 4009, reason: 'full', timestamp: 1 });
    await env.settle();
    if (transport === 'websocket') server.line.end(1006);
    else server.line.rejectClosed(new Error('Connection lost.'));
    await env.advance(2400);
    assert.equal(server.lines.length, 1);
    await env.advance(2700);
    assert.equal(server.lines.length, 2);
  });
}

test('somebody else who is kicked is no end', async () => {
  const { env, server, room } = await joinedRoom();
  server.commit({ type: 'USER_LEFT', userId: 'bob', peerId: 'bob', reason: 'kicked' });
  await env.settle();
  assert.equal(room.state, 'joined');
});

test('PROBE is answered at once, from the message handler', async () => {
  const { env, server } = await joinedRoom();
  server.line.deliver({ type: 'PROBE', id: 7, timestamp: 1 });
  await env.settle();
  assert.deepEqual(server.receivedOf('ALIVE'), [{ type: 'ALIVE', id: 7 }]);
});

// ---- the page is suspended, and comes back ----

for (const [away, back] of [['pagehide', 'pageshow'], ['freeze', 'resume']]) {
  test(`${away} closes the line and keeps the seat; ${back} resumes`, async () => {
    const { env, server, room } = await joinedRoom();
    env.page(away);
    assert.equal(server.line.closedWith.code, 4004);
    assert.equal(room.state, 'reconnecting');
    await env.advance(60_000);
    assert.equal(server.lines.length, 1, 'nothing is tried while it is away');
    assert.equal(server.receivedOf('LEAVE').length, 0);
    env.page(back);
    await env.settle();
    assert.equal(server.lines.length, 2);
    assert.equal(server.receivedOf('JOIN')[1].resumeToken, 'token-1');
    await env.until('joined', () => room.state === 'joined');
  });
}

test('pageshow of a page that was never away does nothing', async () => {
  const { env, server } = await joinedRoom();
  env.page('pageshow');
  env.page('resume');
  await env.settle();
  assert.equal(server.lines.length, 1);
});

test('a room that was left stays left when its page comes back', async () => {
  const { env, server, room } = await joinedRoom();
  room.leave();
  env.page('pagehide');
  env.page('pageshow');
  await env.advance(5000);
  assert.equal(server.lines.length, 1);
});

// ---- whose token it is ----

test('the loser of a takeover doesn’t put its old token back', async () => {
  const storage = new FakeStorage();
  const first = await joinedRoom({ storage });
  const second = openRoom({ storage });
  second.server.room.resumeToken = 'token-2';
  await second.room.ready;
  await second.env.advance(500);
  first.server.commit({ type: 'CHAT', userId: 'bob', username: 'Bob', text: 'x' });
  first.server.line.end(4005, 'superseded');
  await first.env.advance(1000);
  first.env.page('pagehide');
  assert.equal(first.room.state, 'closed');
  const third = openRoom({ storage });
  await third.env.settle();
  assert.equal(third.server.receivedOf('JOIN')[0].resumeToken, 'token-2');
});

test('a member that was kicked keeps no token', async () => {
  const storage = new FakeStorage();
  const first = await joinedRoom({ storage });
  first.server.line.end(4006, 'kicked');
  await first.env.settle();
  const second = openRoom({ storage });
  await second.env.settle();
  assert.equal(second.server.receivedOf('JOIN')[0].resumeToken, undefined);
});

// ---- a seat for each tab ----

/** A browser: the storage and locks that its tabs share. */
class Profile {
  storage = new FakeStorage();
  locks = new FakeLocks();

  /** A page in a tab; a reload is another page with the same `tab`. */
  open(tab = new FakeStorage()) {
    const env = new FakeEnv();
    const page = this.locks.page();
    Object.assign(env, { locks: page, tabStorage: () => tab, uuid: () => `id-${Profile.made++}` });
    const opened = openRoom({ env, userId: undefined, storage: this.storage });
    const server = opened.server;
    server.refuseJoin = (join) => {
      server.room.userId = join.userId;
      server.room.users[0].userId = join.userId;
      return null;
    };
    return { ...opened, tab, close: () => page.close() };
  }

  static made = 1;
}

async function idOf({ env, room }) {
  await env.until('joined', () => room.state === 'joined');
  return room.self.userId;
}

test('two tabs of one visitor are two members', async () => {
  const profile = new Profile();
  const [one, two, three] = [await idOf(profile.open()), await idOf(profile.open()), await idOf(profile.open())];
  assert.equal(new Set([one, two, three]).size, 3);
});

test('a reload is the same member, whichever tab it is', async () => {
  const profile = new Profile();
  const first = profile.open();
  const second = profile.open();
  const [one, two] = [await idOf(first), await idOf(second)];
  second.close();
  assert.equal(await idOf(profile.open(second.tab)), two);
  first.close();
  assert.equal(await idOf(profile.open(first.tab)), one);
});

test('a visit next week is the same member', async () => {
  const profile = new Profile();
  const first = profile.open();
  const one = await idOf(first);
  first.close();
  assert.equal(await idOf(profile.open()), one);
});

test('a duplicated tab is another member, and its copy of the note does no harm', async () => {
  const profile = new Profile();
  const first = profile.open();
  const one = await idOf(first);
  const copy = new FakeStorage();
  first.tab.items.forEach((value, key) => copy.setItem(key, value));
  assert.notEqual(await idOf(profile.open(copy)), one);
});

test('who leaves and joins again in one page is the same member', async () => {
  const profile = new Profile();
  const first = profile.open();
  const one = await idOf(first);
  first.room.leave();
  assert.equal(await idOf(profile.open(first.tab)), one);
});

test('a page in the back/forward cache gives its seat up, and comes back to it, or to another one', async () => {
  const profile = new Profile();
  const first = profile.open();
  const one = await idOf(first);
  first.env.page('pagehide');
  await first.env.settle();
  const second = profile.open();
  assert.equal(await idOf(second), one);
  first.env.page('pageshow');
  await first.env.until('joined', () => first.room.state === 'joined' && first.server.lines.length === 2);
  assert.notEqual(first.room.self.userId, one);
});

test('an application that names the member itself needs no seat', async () => {
  const { env, room } = world((_, env) => (env.locks = new FakeLocks().page()), { storage: new FakeStorage() });
  await room.ready;
  assert.equal(room.self.userId, 'ann');
  assert.equal(env.locks.held.size, 0);
});

// ---- keys ----

const hashOf = (text) => createHash('sha256').update(text).digest('base64url');
const joinOf = async (options) => {
  const { env, server } = world(undefined, options);
  await env.settle();
  return server.receivedOf('JOIN').at(-1);
};

test('JOIN carries a host key for the room and a client key for the server, kept for the next visit', async () => {
  const storage = new FakeStorage();
  const first = await joinOf({ storage });
  assert.match(first.hostKey, /^[\w-]{43}$/);
  assert.match(first.clientKey, /^[\w-]{43}$/);
  assert.equal(first.owner, undefined);
  const again = await joinOf({ storage });
  assert.deepEqual([again.hostKey, again.clientKey], [first.hostKey, first.clientKey]);
  const elsewhere = await joinOf({ storage, roomId: 'saturday' });
  assert.notEqual(elsewhere.hostKey, first.hostKey);
  assert.equal(elsewhere.clientKey, first.clientKey);
});

test('an invitation’s owner goes along, and a host key only if it is that owner’s', async () => {
  const storage = new FakeStorage();
  const mine = (await joinOf({ storage })).hostKey;
  const guest = await joinOf({ storage: new FakeStorage(), owner: hashOf(mine) });
  assert.deepEqual([guest.owner, guest.hostKey], [hashOf(mine), undefined]);
  const owner = await joinOf({ storage, owner: hashOf(mine) });
  assert.deepEqual([owner.owner, owner.hostKey], [hashOf(mine), mine]);
  const foreign = await joinOf({ storage, owner: hashOf('somebody') });
  assert.deepEqual([foreign.owner, foreign.hostKey], [hashOf('somebody'), undefined]);
});

test('an owner that a broken link has cut is none', async () => {
  const join = await joinOf({ owner: 'cut' });
  assert.equal(join.owner, undefined);
  assert.match(join.hostKey, /^[\w-]{43}$/);
});

test('the room’s owner is known, and named again when the room has to be made anew', async () => {
  const { env, server, room } = openRoom();
  server.room.owner = hashOf('somebody');
  await room.ready;
  assert.equal(room.owner, hashOf('somebody'));
  server.line.end(1006);
  await env.until('a second JOIN', () => server.receivedOf('JOIN').length === 2);
  assert.equal(server.receivedOf('JOIN')[1].owner, hashOf('somebody'));
  assert.equal(server.receivedOf('JOIN')[1].hostKey, undefined);
});

test('KICKED says when the member may come back, and isn’t tried again by itself', async () => {
  const { env, server, room, heardOf } = world((server) => (server.refuseJoin = { code: 'KICKED', retryAfterMs: 42_000 }));
  await assert.rejects(room.ready, { code: 'KICKED', retryAfterMs: 42_000 });
  await env.advance(60_000);
  assert.equal(server.receivedOf('JOIN').length, 1);
  assert.deepEqual(heardOf('closed').map(({ code, retryAfterMs }) => [code, retryAfterMs]), [['KICKED', 42_000]]);
});

test('keys stay out of the event log', async () => {
  const { env, room } = world(undefined);
  const logged = [];
  room.addEventListener('message', ({ detail }) => logged.push(detail.message));
  await env.settle();
  const join = logged.find(({ type }) => type === 'JOIN');
  assert.deepEqual([join.hostKey, join.clientKey], ['…', '…']);
});

// ---- addresses ----

/** @param {string} address @param {any} [endpoints] */
async function addresses(address, endpoints = {}) {
  const setup = (server) => {
    server.behaviour = { webtransport: 'fails', websocket: 'opens' };
    server.endpoints = {
      webtransport: { url: 'https://127.0.0.1:4433/wt', port: 4433 },
      websocket: { url: 'ws://127.0.0.1:4001/ws', path: '../ws' },
      ...endpoints,
    };
  };
  const { server, room } = world(setup, { address });
  await room.ready;
  return [server.lookups[0].url, ...server.attempts.map(({ url }) => url)];
}

for (const [server, lookup, quic, socket] of [
  ['https://example.org/watch', 'https://example.org/watch/api/transports', 'https://example.org:4433/wt', 'wss://example.org/watch/ws'],
  ['https://example.org/watch/', 'https://example.org/watch/api/transports', 'https://example.org:4433/wt', 'wss://example.org/watch/ws'],
  ['https://example.org:8443', 'https://example.org:8443/api/transports', 'https://example.org:4433/wt', 'wss://example.org:8443/ws'],
  ['http://localhost:31200/watch', 'http://localhost:31200/watch/api/transports', 'https://127.0.0.1:4433/wt', 'ws://localhost:31200/watch/ws'],
  ['http://[::1]:80/a/b?c#d', 'http://[::1]/a/b/api/transports', 'https://[::1]:4433/wt', 'ws://[::1]/a/b/ws'],
]) {
  test(`addresses are relative to where the client asked: ${server}`, async () => {
    assert.deepEqual(await addresses(server), [lookup, quic, socket]);
  });
}

test('a server that names its public host, or an older one, is taken at its word', async () => {
  const endpoints = { webtransport: { url: 'https://quic.example.org:4433/wt' }, websocket: { url: 'wss://ws.example.org/ws' } };
  const [, quic, socket] = await addresses('https://example.org', endpoints);
  assert.deepEqual([quic, socket], ['https://quic.example.org:4433/wt', 'wss://ws.example.org/ws']);
});

test('two servers at one origin have nothing in common', async () => {
  const storage = new FakeStorage();
  const join = async (address) => {
    const { env, server } = openRoom({ storage, address });
    await env.settle();
    return server.receivedOf('JOIN')[0].clientKey;
  };
  assert.notEqual(await join('https://example.org/watch'), await join('https://example.org/other'));
  assert.equal(await join('https://example.org/watch'), await join('https://example.org/watch/'));
});

// ---- other nodes ----

const OTHERS = [
  { webTransport: { url: 'https://b.test:4433/wt', serverCertificateHashes: [{ algorithm: 'sha-256', value: 'BAUG' }] }, webSocket: { url: 'wss://b.test/ws' } },
];

test('while its server is away the client goes on at another node that the server has named', async () => {
  const { env, server, room } = await joinedRoom({ transport: 'auto', setup: (server) => (server.endpoints.nodes = OTHERS) });
  assert.equal(room.transport, 'webtransport');
  server.lookupFails = true;
  server.line.end(1006);
  await env.until('joined at the other node', () => room.state === 'joined' && server.lines.length === 2);
  const last = server.attempts.at(-1);
  assert.equal(last.url, 'https://b.test:4433/wt');
  assert.deepEqual([...last.options.serverCertificateHashes[0].value], [4, 5, 6]);
  assert.equal(server.receivedOf('JOIN')[1].resumeToken, 'token-1');
});

test('a server that hangs is not waited for when there are other nodes', async () => {
  const { env, server, room } = await joinedRoom({ setup: (server) => (server.endpoints.nodes = OTHERS) });
  server.lookupHangs = true;
  server.line.end(1006);
  await env.advance(2500);
  assert.equal(room.state, 'joined');
  assert.equal(server.attempts.at(-1).url, 'wss://b.test/ws');
  server.lookupHangs = false;
  server.line.end(1006);
  await env.advance(2500);
  assert.equal(server.attempts.at(-1).url, 'wss://tandem.test:4433/ws', 'its own server again, once that is back');
});

test('other nodes are remembered for the page’s next load', async () => {
  const storage = new FakeStorage();
  await joinedRoom({ storage, setup: (server) => (server.endpoints.nodes = OTHERS) });
  const { server, room } = world((server) => (server.lookupFails = true), { storage, transport: 'websocket' });
  await room.ready;
  assert.equal(server.attempts.at(-1).url, 'wss://b.test/ws');
});
