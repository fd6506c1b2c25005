/** The server's side of the connection: fake sockets and sessions, and a small room that answers by PROTOCOL.md. */
import { decodeCompact, encodeReply, FrameDecoder, frame } from '../../client/wire.js';

const encoder = new TextEncoder();

/**
 * Installs `fetch`, `WebSocket` and `WebTransport` in an environment. The flags decide each attempt when it is
 * made.
 */
export class FakeServer {
  constructor(env, { offset = 1_795_000_000_000, latency = 5 } = {}) {
    this.env = env;
    this.offset = offset;
    this.latency = latency;
    this.endpoints = {
      webtransport: { url: 'https://tandem.test:4433/wt', serverCertificateHashes: [{ algorithm: 'sha-256', value: 'AQID' }] },
      websocket: { url: 'wss://tandem.test:4433/ws' },
      protocol: 3,
    };
    /** 'opens' | 'hangs' | 'fails', for each transport */
    this.behaviour = { webtransport: 'opens', websocket: 'opens' };
    this.lookupFails = false;
    this.lookupHangs = false;
    this.lookups = [];
    this.attempts = [];
    this.lines = [];
    this.answersJoin = true;
    this.refuseJoin = null;
    this.answersProbes = true;
    this.answersPings = true;
    /** How what a line brings reaches the page. */
    this.toPage = (deliver) => deliver();
    this.room = {};
    this.resetRoom();

    const server = this;
    env.fetch = async (url, init) => {
      this.lookups.push({ url, at: env.now() });
      if (this.lookupHangs) return new Promise((_, reject) => init?.signal?.addEventListener('abort', () => reject(init.signal.reason)));
      if (this.lookupFails) throw new TypeError('network error');
      if (this.refusesOrigin) return { ok: false, status: 403, json: async () => ({ error: 'no', code: 'ORIGIN_REFUSED' }) };
      if (url.endsWith('/api/ice-servers')) return { ok: true, json: async () => ({ iceServers: [], ttlSecs: 60 }) };
      return { ok: true, json: async () => structuredClone(this.endpoints) };
    };
    env.WebSocket = class {
      constructor(url) {
        return new FakeWebSocket(server, url);
      }
    };
    env.WebTransport = class {
      constructor(url, options) {
        return new FakeWebTransport(server, url, options);
      }
    };
  }

  resetRoom() {
    this.room = {
      type: 'ROOM_STATE', roomId: 'friday', url: null, currentTime: 0, isPlaying: false, hostUserId: 'ann',
      guestControlEnabled: false,
      users: [
        { userId: 'ann', username: 'Ann', slot: 1, connected: true, protocol: 3, transport: 'websocket', joinedAt: 1 },
      ],
      nodeId: 'node-1', protocol: 3, userId: 'ann', slot: 1, sessionId: 's-1', resumeToken: 'token-1', resumed: false,
      epoch: 100, seq: 4, roomTime: this.roomTime(),
      playback: { position: 0, rate: 1, playing: false, at: 0, seq: 1 },
      gate: null, hasPin: false, banned: [], graceMs: 30000, heartbeatMs: 8000, film: 0, duration: null,
    };
  }

  roomTime() {
    return this.env.now() + this.offset;
  }

  /** The line in use. */
  get line() {
    return this.lines.findLast(({ closedWith }) => closedWith === null) ?? this.lines.at(-1);
  }

  /** Messages that clients sent over all lines. */
  get received() {
    return this.lines.flatMap((line) => line.received);
  }

  receivedOf(type) {
    return this.received.filter((message) => message.type === type);
  }

  compactOf(kind) {
    return this.lines.flatMap((line) => line.compact).filter((message) => message?.kind === kind);
  }

  /** Commits an event: the next seq, to the line in use. */
  commit(event) {
    this.room.seq += 1;
    if (event.playback) this.room.playback = { seq: this.room.seq, ...event.playback };
    if (event.playback) event = { gate: null, ...event };
    if (event.type === 'URL_CHANGE') {
      this.room.url = event.url;
      event = { film: ++this.room.film, ...event };
    }
    if ('gate' in event) this.room.gate = event.gate;
    const message = { timestamp: this.roomTime(), epoch: this.room.epoch, seq: this.room.seq, ...event };
    if (event.playback) message.playback = this.room.playback;
    this.line.deliver(message);
    return message;
  }

  accept(line) {
    this.lines.push(line);
  }

  onMessage(line, message) {
    if (line.cut) return;
    line.received.push(message);
    if (message.type === 'JOIN') {
      if (this.refuseJoin) {
        const refusal = typeof this.refuseJoin === 'function' ? this.refuseJoin(message) : this.refuseJoin;
        if (refusal) return line.deliver({ type: 'ERROR', message: 'refused', request: 'JOIN', ref: message.ref, ...refusal });
      }
      if (this.answersJoin) line.deliver({ ...this.room, roomTime: this.roomTime() });
    }
    if (message.type === 'PING' && this.answersPings) line.deliver({ type: 'PONG', echo: message.timestamp, timestamp: this.roomTime() });
    if (message.type === 'REQUEST_SYNC' && this.answersSync !== false) line.deliver({ ...this.room, resumeToken: undefined });
    this.onRequest?.(line, message);
  }

  onCompact(line, bytes) {
    if (line.cut) return;
    const message = decodeCompact(bytes);
    line.compact.push(message);
    if (message?.kind !== 'probe' || !this.answersProbes) return;
    const at = this.roomTime() + this.latency;
    this.env.setTimeout(() => line.deliverCompact(encodeReply({ id: message.id, t0: message.t0, t1: at, t2: at })), 2 * this.latency);
  }
}

class FakeWebSocket {
  kind = 'websocket';
  /** Nothing passes any more, either way. */
  cut = false;
  readyState = 0;
  bufferedAmount = 0;
  received = [];
  compact = [];
  closedWith = null;

  constructor(server, url) {
    this.server = server;
    this.url = url;
    server.attempts.push({ kind: 'websocket', at: server.env.now(), url });
    const behaviour = server.behaviour.websocket;
    queueMicrotask(() => {
      if (behaviour === 'fails') this.end(1006, '');
      if (behaviour !== 'opens' || this.readyState !== 0) return;
      this.readyState = 1;
      server.accept(this);
      this.onopen?.();
    });
  }

  send(data) {
    if (typeof data === 'string') this.server.onMessage(this, JSON.parse(data));
    else this.server.onCompact(this, data);
  }

  close(code, reason) {
    this.closedWith ??= { code, reason };
    this.readyState = 3;
  }

  deliver(message) {
    this.#bring(JSON.stringify(message));
  }

  deliverCompact(bytes) {
    this.#bring(bytes.slice().buffer);
  }

  #bring(data) {
    if (!this.cut) this.server.toPage(() => this.readyState === 1 && this.onmessage?.({ data }));
  }

  end(code, reason = '') {
    this.server.toPage(() => {
      this.readyState = 3;
      this.onclose?.({ code, reason });
    });
  }
}

class FakeWebTransport {
  kind = 'webtransport';
  cut = false;
  received = [];
  compact = [];
  closedWith = null;

  constructor(server, url, options) {
    this.server = server;
    this.options = options;
    server.attempts.push({ kind: 'webtransport', at: server.env.now(), url, options });
    this.ready = new Promise((resolve, reject) => Object.assign(this, { resolveReady: resolve, rejectReady: reject }));
    this.closed = new Promise((resolve, reject) => Object.assign(this, { resolveClosed: resolve, rejectClosed: reject }));
    this.closed.catch(() => {});
    this.datagrams = {
      incomingHighWaterMark: 1,
      readable: new ReadableStream({ start: (controller) => (this.datagramsOut = controller) }),
      writable: new WritableStream({ write: (bytes) => server.onCompact(this, bytes) }),
    };
    const behaviour = server.behaviour.webtransport;
    queueMicrotask(() => {
      if (behaviour === 'fails') this.fail(new Error('opening handshake failed'));
      if (behaviour === 'opens') this.resolveReady();
    });
  }

  fail(error) {
    this.rejectReady(error);
    this.rejectClosed(error);
  }

  async createBidirectionalStream() {
    this.server.accept(this);
    const decoder = new FrameDecoder();
    const text = (json) => this.server.onMessage(this, JSON.parse(json));
    return {
      readable: new ReadableStream({ start: (controller) => (this.controlOut = controller) }),
      writable: new WritableStream({ write: (bytes) => decoder.push(bytes).forEach(text) }),
    };
  }

  close(info) {
    this.closedWith ??= { code: info.closeCode, reason: info.reason };
    this.resolveClosed(info);
  }

  deliver(message) {
    if (this.cut) return;
    // In two pieces: the client must not count on whole messages.
    const bytes = frame(encoder.encode(JSON.stringify(message)));
    this.server.toPage(() => {
      this.controlOut.enqueue(bytes.slice(0, 3));
      this.controlOut.enqueue(bytes.slice(3));
    });
  }

  deliverCompact(bytes) {
    if (!this.cut) this.server.toPage(() => this.datagramsOut.enqueue(bytes));
  }

  end(code, reason = '') {
    this.server.toPage(() => this.resolveClosed({ closeCode: code, reason }));
  }
}
