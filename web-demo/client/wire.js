/**
 * The bytes of PROTOCOL.md: the compact messages (§6) and the length framing of the WebTransport control stream (§1).
 * Pure functions: nothing here knows of a connection.
 */

/** The largest JSON message a client may send. */
export const MAX_MESSAGE_BYTES = 65_536;

/**
 * The largest JSON message that this client takes: the ROOM_STATE of a crowded room is longer than a client's message.
 */
export const MAX_INCOMING_BYTES = 1_048_576;

export const MAX_DATAGRAM_BYTES = 1000;

const KIND_PROBE = 1;
const KIND_REPLY = 2;
const KIND_TICK = 3;
const KIND_STATUS = 4;
const KIND_DIGEST = 5;
const KIND_BUNDLE = 6;

const PROBE_BYTES = 12;
const REPLY_BYTES = 28;
const TICK_BYTES = 28;
const STATUS_BYTES = 20;
const DIGEST_BYTES = 28;
const STAND_OUT_BYTES = 7;

const FLAG_PLAYING = 1;
const FLAG_FROM_HOST = 2;

const FLAG_BUFFERING = 1;
const FLAG_HAS_RTT = 2;
const FLAG_HAS_DRIFT = 4;
const FLAG_HAS_CLOCK_ERROR = 8;
const FLAG_IN_CALL = 16;
const FLAG_WEBTRANSPORT = 32;

const FLAG_HAS_DISTANCE = 1;

/** A measurement beyond 10 minutes is refused by the server. */
const MOST_MEASURED_MS = 600_000;

/**
 * @typedef {{kind: 'probe', id: number, t0: number}} Probe
 * @typedef {{kind: 'reply', id: number, t0: number, t1: number, t2: number}} Reply
 * @typedef {{kind: 'tick', playing: boolean, fromHost: boolean, slot: number, seq: number,
 *            position: number, at: number, rate: number}} Tick
 * @typedef {{kind: 'status', slot: number, seq: number, buffering: boolean, inCall: boolean,
 *            transport: 'webtransport'|'websocket', rttMs: number|null, driftMs: number|null,
 *            clockErrorMs: number|null}} Status   the server writes slot and transport
 * @typedef {{slot: number, buffering: boolean, inCall: boolean, driftMs: number|null}} StandOut
 * @typedef {{kind: 'digest', members: number, audience: number, measured: number, inStep: number, buffering: number,
 *            p50Ms: number|null, p95Ms: number|null, standOuts: StandOut[]}} Digest
 */

/** A message that breaks the wire's rules: too big, or not what its first bytes say. */
export class WireError extends Error {}

/**
 * @param {number} id
 * @param {number} t0
 */
export function encodeProbe(id, t0) {
  const view = new DataView(new ArrayBuffer(PROBE_BYTES));
  view.setUint8(0, KIND_PROBE);
  view.setUint16(2, id);
  view.setFloat64(4, t0);
  return new Uint8Array(view.buffer);
}

/** @param {Omit<Reply, 'kind'>} reply */
export function encodeReply({ id, t0, t1, t2 }) {
  const view = new DataView(new ArrayBuffer(REPLY_BYTES));
  view.setUint8(0, KIND_REPLY);
  view.setUint16(2, id);
  view.setFloat64(4, t0);
  view.setFloat64(12, t1);
  view.setFloat64(20, t2);
  return new Uint8Array(view.buffer);
}

/** @param {Omit<Tick, 'kind'>} tick */
export function encodeTick({ playing, fromHost, slot, seq, position, at, rate }) {
  const view = new DataView(new ArrayBuffer(TICK_BYTES));
  view.setUint8(0, KIND_TICK);
  view.setUint8(1, (playing ? FLAG_PLAYING : 0) | (fromHost ? FLAG_FROM_HOST : 0));
  view.setUint16(2, slot);
  view.setUint32(4, seq);
  view.setFloat64(8, position);
  view.setFloat64(16, at);
  view.setFloat32(24, rate);
  return new Uint8Array(view.buffer);
}

/** @param {Omit<Status, 'kind'>} status  a measurement beyond 10 minutes is told as unknown */
export function encodeStatus({ slot, seq, buffering, inCall, transport, rttMs, driftMs, clockErrorMs }) {
  const view = new DataView(new ArrayBuffer(STATUS_BYTES));
  const measured = [rttMs, driftMs, clockErrorMs].map((ms) => (isMeasured(ms) ? ms : null));
  const flags = [
    [buffering, FLAG_BUFFERING], [measured[0] !== null, FLAG_HAS_RTT], [measured[1] !== null, FLAG_HAS_DRIFT],
    [measured[2] !== null, FLAG_HAS_CLOCK_ERROR], [inCall, FLAG_IN_CALL], [transport === 'webtransport', FLAG_WEBTRANSPORT],
  ];
  view.setUint8(0, KIND_STATUS);
  view.setUint8(1, flags.reduce((all, [holds, flag]) => all | (holds ? Number(flag) : 0), 0));
  view.setUint16(2, slot);
  view.setUint32(4, seq);
  measured.forEach((ms, index) => view.setInt32(8 + 4 * index, Math.round((ms ?? 0) * 1000)));
  return new Uint8Array(view.buffer);
}

/** @param {number|null} ms */
function isMeasured(ms) {
  return ms !== null && Math.abs(ms) <= MOST_MEASURED_MS;
}

/**
 * Messages that left the server together come as one frame or datagram.
 * @param {Uint8Array} bytes
 * @returns {Uint8Array[]} the parts of a bundle in order, without one that is cut; else the message itself
 */
export function unbundle(bytes) {
  if (bytes[0] !== KIND_BUNDLE) return [bytes];
  const parts = [];
  for (let start = 1; start < bytes.byteLength; ) {
    const end = start + 1 + bytes[start];
    if (end > bytes.byteLength) break;
    parts.push(bytes.subarray(start + 1, end));
    start = end;
  }
  return parts;
}

/**
 * @param {Uint8Array} bytes
 * @returns {Probe|Reply|Tick|Status|Digest|null} null for a message to ignore: an unknown kind, a wrong length, a value
 *   that is no number
 */
export function decodeCompact(bytes) {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
  const kind = view.byteLength > 0 ? view.getUint8(0) : 0;
  if (kind === KIND_PROBE && view.byteLength === PROBE_BYTES) {
    return finite({ kind: 'probe', id: view.getUint16(2), t0: view.getFloat64(4) });
  }
  if (kind === KIND_REPLY && view.byteLength === REPLY_BYTES) {
    return finite({
      kind: 'reply',
      id: view.getUint16(2),
      t0: view.getFloat64(4),
      t1: view.getFloat64(12),
      t2: view.getFloat64(20),
    });
  }
  if (kind === KIND_TICK && view.byteLength === TICK_BYTES) {
    const flags = view.getUint8(1);
    return finite({
      kind: 'tick',
      playing: (flags & FLAG_PLAYING) !== 0,
      fromHost: (flags & FLAG_FROM_HOST) !== 0,
      slot: view.getUint16(2),
      seq: view.getUint32(4),
      position: view.getFloat64(8),
      at: view.getFloat64(16),
      rate: view.getFloat32(24),
    });
  }
  if (kind === KIND_STATUS && view.byteLength === STATUS_BYTES) {
    const flags = view.getUint8(1);
    const measured = (/** @type {number} */ flag, /** @type {number} */ at) => (flags & flag ? view.getInt32(at) / 1000 : null);
    return {
      kind: 'status',
      slot: view.getUint16(2),
      seq: view.getUint32(4),
      buffering: (flags & FLAG_BUFFERING) !== 0,
      inCall: (flags & FLAG_IN_CALL) !== 0,
      transport: flags & FLAG_WEBTRANSPORT ? 'webtransport' : 'websocket',
      rttMs: measured(FLAG_HAS_RTT, 8),
      driftMs: measured(FLAG_HAS_DRIFT, 12),
      clockErrorMs: measured(FLAG_HAS_CLOCK_ERROR, 16),
    };
  }
  if (kind === KIND_DIGEST && view.byteLength >= DIGEST_BYTES && (view.byteLength - DIGEST_BYTES) % STAND_OUT_BYTES === 0) {
    return decodeDigest(view);
  }
  return null;
}

/** @param {DataView} view @returns {Digest} */
function decodeDigest(view) {
  const hasDistance = (view.getUint8(1) & FLAG_HAS_DISTANCE) !== 0;
  /** @type {StandOut[]} */
  const standOuts = [];
  for (let at = DIGEST_BYTES; at < view.byteLength; at += STAND_OUT_BYTES) {
    const flags = view.getUint8(at + 2);
    standOuts.push({
      slot: view.getUint16(at),
      buffering: (flags & FLAG_BUFFERING) !== 0,
      inCall: (flags & FLAG_IN_CALL) !== 0,
      driftMs: flags & FLAG_HAS_DRIFT ? view.getInt32(at + 3) / 1000 : null,
    });
  }
  return {
    kind: 'digest',
    members: view.getUint16(2),
    audience: view.getUint32(4),
    measured: view.getUint32(8),
    inStep: view.getUint32(12),
    buffering: view.getUint32(16),
    p50Ms: hasDistance ? view.getInt32(20) / 1000 : null,
    p95Ms: hasDistance ? view.getInt32(24) / 1000 : null,
    standOuts,
  };
}

/** @param {Omit<Digest, 'kind'>} digest */
export function encodeDigest({ members, audience, measured, inStep, buffering, p50Ms, p95Ms, standOuts }) {
  const view = new DataView(new ArrayBuffer(DIGEST_BYTES + STAND_OUT_BYTES * standOuts.length));
  view.setUint8(0, KIND_DIGEST);
  view.setUint8(1, p50Ms === null ? 0 : FLAG_HAS_DISTANCE);
  view.setUint16(2, members);
  [audience, measured, inStep, buffering].forEach((count, index) => view.setUint32(4 + 4 * index, count));
  view.setInt32(20, Math.round((p50Ms ?? 0) * 1000));
  view.setInt32(24, Math.round((p95Ms ?? 0) * 1000));
  standOuts.forEach((member, index) => {
    const at = DIGEST_BYTES + STAND_OUT_BYTES * index;
    view.setUint16(at, member.slot);
    view.setUint8(at + 2, (member.buffering ? FLAG_BUFFERING : 0) | (member.driftMs !== null ? FLAG_HAS_DRIFT : 0) | (member.inCall ? FLAG_IN_CALL : 0));
    view.setInt32(at + 3, Math.round((member.driftMs ?? 0) * 1000));
  });
  return new Uint8Array(view.buffer);
}

/**
 * @template {object} T
 * @param {T} message
 * @returns {T|null}
 */
function finite(message) {
  return Object.values(message).every((v) => typeof v !== 'number' || Number.isFinite(v)) ? message : null;
}

/**
 * Whether the counter of a tick or a status is newer than the last one, on a u32 that wraps.
 * @param {number} seq
 * @param {number} last
 */
export function isNewer(seq, last) {
  const ahead = (seq - last) >>> 0;
  return ahead !== 0 && ahead < 0x8000_0000;
}

const encoder = new TextEncoder();

/**
 * UTF-8 bytes of a JSON message.
 * @param {unknown} message
 */
export function encodeJson(message) {
  const bytes = encoder.encode(JSON.stringify(message));
  if (bytes.byteLength > MAX_MESSAGE_BYTES) {
    throw new WireError(`a message of ${bytes.byteLength} bytes is above the limit of ${MAX_MESSAGE_BYTES}`);
  }
  return bytes;
}

/**
 * A message of the control stream: 4 bytes of length, then the JSON.
 * @param {Uint8Array} json
 */
export function frame(json) {
  const framed = new Uint8Array(4 + json.byteLength);
  new DataView(framed.buffer).setUint32(0, json.byteLength);
  framed.set(json, 4);
  return framed;
}

/** Cuts the control stream's bytes, which arrive in chunks of any size, back into messages. */
export class FrameDecoder {
  /** @type {Uint8Array[]} */
  #chunks = [];
  #buffered = 0;
  #text = new TextDecoder('utf-8', { fatal: true });

  /**
   * @param {Uint8Array} chunk
   * @returns {string[]} the messages that are now whole, in order
   */
  push(chunk) {
    this.#chunks.push(chunk);
    this.#buffered += chunk.byteLength;
    const messages = [];
    while (this.#buffered >= 4) {
      const head = this.#gather(4);
      const length = new DataView(head.buffer, head.byteOffset, 4).getUint32(0);
      // Checked on the announced length: a hostile or broken peer must not make us buffer 4 GiB first.
      if (length > MAX_INCOMING_BYTES) throw new WireError(`a frame of ${length} bytes is above the limit`);
      if (this.#buffered < 4 + length) break;
      const whole = this.#gather(4 + length);
      messages.push(this.#text.decode(whole.subarray(4, 4 + length)));
      this.#consume(4 + length);
    }
    return messages;
  }

  /**
   * Makes the first chunk at least `length` bytes long. Joining happens once a message, not once a chunk.
   * @param {number} length
   */
  #gather(length) {
    if (this.#chunks[0].byteLength < length) {
      const joined = new Uint8Array(this.#buffered);
      let offset = 0;
      for (const chunk of this.#chunks) {
        joined.set(chunk, offset);
        offset += chunk.byteLength;
      }
      this.#chunks = [joined];
    }
    return this.#chunks[0];
  }

  /** @param {number} length */
  #consume(length) {
    this.#chunks[0] = this.#chunks[0].subarray(length);
    this.#buffered -= length;
    if (this.#chunks[0].byteLength === 0) this.#chunks.shift();
  }
}
