import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Call } from '../client/index.js';
import { FakeEnv } from './support/fake-env.js';
import { FakeServer } from './support/fake-server.js';
import { joinedRoom } from './support/room-harness.js';

/** The signaling states of a peer connection, and the rules of "perfect negotiation" that it enforces. */
class FakePeerConnection {
  static made = [];
  signalingState = 'stable';
  connectionState = 'new';
  localDescription = null;
  transceivers = [];
  candidates = [];
  closed = false;

  constructor() {
    FakePeerConnection.made.push(this);
  }
  getTransceivers() {
    return this.transceivers;
  }
  addTransceiver(kind) {
    this.transceivers.push(kind);
    if (this.transceivers.length === 1) queueMicrotask(() => this.onnegotiationneeded?.());
  }
  addTrack(track) {
    this.addTransceiver(track.kind);
  }
  async setLocalDescription() {
    const type = this.signalingState === 'have-remote-offer' ? 'answer' : 'offer';
    this.localDescription = { type, sdp: `sdp of ${type}` };
    this.signalingState = type === 'offer' ? 'have-local-offer' : 'stable';
  }
  async setRemoteDescription({ type }) {
    if (type === 'answer' && this.signalingState !== 'have-local-offer') throw new Error('InvalidStateError');
    this.signalingState = type === 'offer' ? 'have-remote-offer' : 'stable';
  }
  async addIceCandidate(candidate) {
    this.candidates.push(candidate);
  }
  restartIce() {
    this.restarted = true;
  }
  close() {
    this.closed = true;
  }
}

/** Ann (slot 1), Bob (slot 2, v3) and Old (slot 3, v2). Ann is `self` unless `as` says otherwise. */
async function calling({ as = 'ann' } = {}) {
  FakePeerConnection.made = [];
  const env = new FakeEnv();
  env.RTCPeerConnection = FakePeerConnection;
  const server = new FakeServer(env);
  const users = [['ann', 1, 3], ['bob', 2, 3], ['old', 3, 2]];
  server.room.users = users.map(([userId, slot, protocol]) => ({ userId, username: userId, slot, protocol, connected: true, transport: 'websocket', joinedAt: slot }));
  server.room.userId = as;
  const harness = await joinedRoom({ env, server, userId: as });
  const call = new Call(harness.room, { iceServers: [] });
  const gone = [];
  call.addEventListener('peer-gone', ({ detail }) => gone.push(detail.userId));
  await call.start({ audio: false, video: false });
  await env.settle();
  const sent = (to) => server.received.filter((message) => message.to === to).map(({ type, payload }) => payload?.kind ?? type);
  return { ...harness, call, gone, sent, hear: (message) => (server.line.deliver({ timestamp: 1, ...message }), env.settle()) };
}

const here = (userId) => ({ type: 'CUSTOM', namespace: 'tandem.call', payload: { kind: 'here' }, userId, to: 'ann' });
const offer = (from) => ({ type: 'OFFER', from, offer: { type: 'offer', sdp: 'theirs' } });

test('who starts a call says "here" to v3 members, and offers to v2 members, who know no "here"', async () => {
  const { sent, call } = await calling();
  assert.deepEqual(sent('bob'), ['here']);
  assert.deepEqual(sent('old'), ['OFFER']);
  assert.deepEqual([...call.peers.keys()], ['old']);
});

test('who is in a call says so with its status, until it leaves', async () => {
  const { call, room, server } = await calling();
  const told = () => {
    room.sendStatus({ driftMs: 1, buffering: false });
    return server.compactOf('status').at(-1).inCall;
  };
  assert.equal(told(), true);
  assert.equal(room.members[0].inCall, true);
  call.stop();
  assert.equal(told(), false);
});

test('a "here" is answered with an offer, by a fresh connection', async () => {
  const { sent, hear, call } = await calling();
  await hear(here('bob'));
  assert.deepEqual(sent('bob'), ['here', 'OFFER']);
  const first = FakePeerConnection.made.at(-1);
  await hear(here('bob'));
  assert.ok(first.closed, 'a "here" again is from a reloaded page');
  assert.equal(call.peers.size, 2);
});

test('when offers cross, the lower slot insists and the higher one gives way', async () => {
  const impolite = await calling({ as: 'ann' });
  await impolite.hear(here('bob'));
  await impolite.hear(offer('bob'));
  assert.deepEqual(impolite.sent('bob'), ['here', 'OFFER']);
  await impolite.hear({ type: 'ANSWER', from: 'bob', answer: { type: 'answer', sdp: 'theirs' } });
  assert.equal(FakePeerConnection.made.at(-1).signalingState, 'stable');

  const polite = await calling({ as: 'bob' });
  await polite.hear(here('ann'));
  await polite.hear(offer('ann'));
  assert.deepEqual(polite.sent('ann'), ['here', 'OFFER', 'ANSWER']);
});

test('an offer out of the blue is answered; an answer or a candidate is not', async () => {
  const { sent, hear } = await calling();
  await hear({ type: 'ANSWER', from: 'bob', answer: { type: 'answer', sdp: 'theirs' } });
  await hear({ type: 'ICE_CANDIDATE', from: 'bob', candidate: { candidate: 'c' } });
  assert.equal(FakePeerConnection.made.length, 1, 'only the one to the v2 member');
  await hear(offer('bob'));
  await hear({ type: 'ICE_CANDIDATE', from: 'bob', candidate: { candidate: 'c' } });
  assert.deepEqual(sent('bob'), ['here', 'ANSWER']);
  assert.equal(FakePeerConnection.made.at(-1).candidates.length, 1);
});

test('a member in grace keeps its connection, one who left loses it', async () => {
  const { server, env, hear, call, gone } = await calling();
  await hear(here('bob'));
  server.commit({ type: 'MEMBER_CONNECTION', userId: 'bob', connected: false, graceUntil: 1, transport: 'websocket' });
  await env.settle();
  assert.ok(call.peers.has('bob'));
  server.commit({ type: 'USER_LEFT', userId: 'bob', peerId: 'bob', reason: 'lost' });
  await env.settle();
  assert.ok(!call.peers.has('bob'));
  assert.deepEqual(gone, ['bob']);
});

test('stopping says so to the others and closes everything', async () => {
  const { sent, hear, call } = await calling();
  await hear(here('bob'));
  call.stop();
  assert.deepEqual(sent('bob').at(-1), 'gone');
  assert.ok(FakePeerConnection.made.every(({ closed }) => closed));
  await hear(offer('bob'));
  assert.equal(call.peers.size, 0);
});

test('a call that outlives its signaling restarts what was not connected', async () => {
  const { server, env, room, hear } = await calling();
  await hear(here('bob'));
  const peer = FakePeerConnection.made.at(-1);
  server.line.end(1006);
  await env.until('joined again', () => room.state === 'joined');
  assert.ok(peer.restarted);
});
