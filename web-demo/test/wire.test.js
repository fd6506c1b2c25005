import assert from 'node:assert/strict';
import { test } from 'node:test';
import {
  FrameDecoder, MAX_INCOMING_BYTES, MAX_MESSAGE_BYTES, decodeCompact, encodeDigest, encodeJson, encodeProbe, encodeReply, encodeStatus,
  encodeTick, frame, isNewer, unbundle,
} from '../client/wire.js';

const hex = (bytes) => Buffer.from(bytes).toString('hex');
const bytes = (text) => Uint8Array.from(Buffer.from(text.replaceAll(' ', ''), 'hex'));

test('a clock probe is 12 bytes: kind, pad, id, t0', () => {
  assert.equal(hex(encodeProbe(0x0102, 1.5)), '010001023ff8000000000000');
});

test('a clock reply is read field by field', () => {
  const reply = { id: 7, t0: 1.5, t1: 1_795_000_000_000.25, t2: 1_795_000_000_000.5 };
  assert.deepEqual(decodeCompact(encodeReply(reply)), { kind: 'reply', ...reply });
  assert.equal(encodeReply(reply).byteLength, 28);
});

test('a tick carries its flags, and a position to the last bit', () => {
  const tick = { playing: true, fromHost: false, slot: 513, seq: 0xfffffffe, position: 93.2512345, at: 1_795_000_000_000.125, rate: 1.25 };
  const encoded = encodeTick(tick);
  assert.equal(encoded.byteLength, 28);
  assert.equal(hex(encoded.subarray(0, 8)), '03010201fffffffe');
  assert.deepEqual(decodeCompact(encoded), { kind: 'tick', ...tick });
  assert.equal(decodeCompact(encodeTick({ ...tick, playing: false, fromHost: true })).fromHost, true);
});

test('a status has its measurements in microseconds, and says which of them are none', () => {
  const status = {
    slot: 258, seq: 0x01020304, buffering: true, inCall: false, transport: 'webtransport', rttMs: 14.2, driftMs: -3.1, clockErrorMs: null,
  };
  // The same bytes as in tests/protocol/golden.rs.
  assert.equal(hex(encodeStatus(status)), '04270102' + '01020304' + '00003778' + 'fffff3e4' + '00000000');
  assert.deepEqual(decodeCompact(encodeStatus(status)), { kind: 'status', ...status });
  const none = { ...status, rttMs: null, driftMs: null, buffering: false, inCall: true, transport: 'websocket', clockErrorMs: 0.001 };
  assert.deepEqual(decodeCompact(encodeStatus(none)), { kind: 'status', ...none });
  const wild = { ...status, rttMs: 600_000.1, driftMs: -25_000_000, clockErrorMs: NaN };
  assert.deepEqual(decodeCompact(encodeStatus(wild)), { kind: 'status', ...status, rttMs: null, driftMs: null });
  assert.equal(decodeCompact(encodeStatus(status).subarray(0, 19)), null);
});

test('a digest has its counts, percentiles and those who stand out', () => {
  const digest = {
    members: 200, audience: 1004, measured: 1190, inStep: 1166, buffering: 3, p50Ms: 3.1, p95Ms: 17,
    standOuts: [{ slot: 258, buffering: true, inCall: false, driftMs: null }, { slot: 2, buffering: false, inCall: true, driftMs: -90 }],
  };
  // The same bytes as in tests/protocol/golden.rs.
  assert.equal(hex(encodeDigest(digest)),
    '050100c8' + '000003ec' + '000004a6' + '0000048e' + '00000003' + '00000c1c' + '00004268' + '01020100000000' + '000214fffea070');
  assert.deepEqual(decodeCompact(encodeDigest(digest)), { kind: 'digest', ...digest });
  const bare = { members: 0, audience: 0, measured: 0, inStep: 0, buffering: 0, p50Ms: null, p95Ms: null, standOuts: [] };
  assert.deepEqual(decodeCompact(encodeDigest(bare)), { kind: 'digest', ...bare });
  for (const length of [27, 29, 34]) assert.equal(decodeCompact(encodeDigest(digest).subarray(0, length)), null, `${length} bytes`);
});

test('a compact message is read from the middle of a larger buffer', () => {
  const padded = new Uint8Array(20);
  padded.set(encodeProbe(3, 42), 5);
  assert.deepEqual(decodeCompact(padded.subarray(5, 17)), { kind: 'probe', id: 3, t0: 42 });
});

test('an unknown kind, a wrong length and a number that is none are ignored', () => {
  assert.equal(decodeCompact(new Uint8Array()), null);
  assert.equal(decodeCompact(bytes('09 00 00 00')), null);
  assert.equal(decodeCompact(encodeProbe(1, 1).subarray(0, 11)), null);
  assert.equal(decodeCompact(encodeProbe(1, NaN)), null);
  assert.equal(decodeCompact(encodeTick({ slot: 1, seq: 1, position: Infinity, at: 0, rate: 1 })), null);
});

test('messages that left together are taken apart, one that is cut is dropped, and a single one is itself', () => {
  const tick = encodeTick({ playing: true, fromHost: false, slot: 2, seq: 1, position: 1, at: 1, rate: 1 });
  const reply = encodeReply({ id: 1, t0: 1, t1: 2, t2: 3 });
  const bundle = Uint8Array.from([6, 28, ...tick, 28, ...reply]);
  assert.deepEqual(unbundle(bundle).map((part) => decodeCompact(part)?.kind), ['tick', 'reply']);
  assert.deepEqual(unbundle(bundle.subarray(0, 57)).map((part) => decodeCompact(part)?.kind), ['tick']);
  assert.deepEqual(unbundle(tick), [tick]);
  assert.deepEqual(unbundle(bytes('06')), []);
  assert.deepEqual(unbundle(new Uint8Array()), [new Uint8Array()]);
});

test('a tick counter that wraps is newer than the one before', () => {
  assert.ok(isNewer(6, 5));
  assert.ok(!isNewer(5, 5));
  assert.ok(!isNewer(4, 5));
  assert.ok(isNewer(1, 0xffffffff));
  assert.ok(!isNewer(0xffffffff, 1));
});

test('messages survive a control stream that cuts them anywhere', () => {
  const messages = [{ type: 'PONG' }, { type: 'CHAT', text: 'žluťoučký kůň 🐎' }, { type: 'X', long: 'y'.repeat(5000) }];
  const stream = Buffer.concat(messages.map((message) => frame(encodeJson(message))));
  for (const size of [1, 2, 3, 5, 7, 64, stream.length]) {
    const decoder = new FrameDecoder();
    const got = [];
    for (let i = 0; i < stream.length; i += size) got.push(...decoder.push(Uint8Array.from(stream.subarray(i, i + size))));
    assert.deepEqual(got.map((text) => JSON.parse(text)), messages, `in chunks of ${size}`);
  }
});

test('a frame that announces too much is refused before it is buffered', () => {
  const head = new Uint8Array(4);
  new DataView(head.buffer).setUint32(0, MAX_INCOMING_BYTES + 1);
  assert.throws(() => new FrameDecoder().push(head), /above the limit/);
});

test('a message above the limit is not sent: its size counts in UTF-8, not in characters', () => {
  assert.doesNotThrow(() => encodeJson('x'.repeat(MAX_MESSAGE_BYTES - 2)));
  assert.throws(() => encodeJson('x'.repeat(MAX_MESSAGE_BYTES - 1)), /above the limit/);
  assert.throws(() => encodeJson('é'.repeat(MAX_MESSAGE_BYTES / 2)), /above the limit/);
});
