/**
 * A connection that comes back: finds the server's transports, races them, watches for silence, and reconnects with
 * backoff until it is told to stop. It knows nothing of rooms; what a session says is the room's business.
 *
 * @typedef {import('./transports.js').Transport} Transport
 * @typedef {'unsupported'|'not_offered'|'failed'|'slow'|'remembered'|'chosen'} Fallback
 *
 * @typedef {object} ConnectionHandlers
 * @property {() => void} onOpen                     a fresh session: say JOIN
 * @property {(message: any) => void} onMessage
 * @property {(bytes: Uint8Array) => void} onCompact
 * @property {() => void} onDown                     the session is gone, another one will follow
 * @property {(end: {code: number, reason: string}) => void} onEnd  gone for good
 * @property {(message: any) => void} onSent         for the event log
 */
import { TandemError, retryAfterClose } from './errors.js';
import { openFastest } from './race.js';
import { openWebSocket, openWebTransport } from './transports.js';
import { encodeJson } from './wire.js';

const PING_EVERY_MS = 5000;
const MOST_SILENCE_MS = 12_000;
/** What is left of that silence when we have just woken up: what arrived meanwhile needs a moment to be read. */
const SILENCE_AFTER_WAKING_MS = 4000;
const WOKE_LATE_MS = 3000;
const JOIN_WITHIN_MS = 10_000;
const LOOKUP_WITHIN_MS = 8000;

const BACKOFF_FIRST_MS = 300;
const BACKOFF_CAP_MS = 10_000;
const BACKOFF_LATER_MS = 5000;

/** This client dropped the line (silence, a planned move) and will resume: not a LEAVE. */
const CLOSE_DROPPED = 4004;

export class Connection {
  #server;
  #preference;
  #store;
  #env;
  #handlers;
  /** @type {Transport|null} */
  #transport = null;
  /** Counts attempts; whatever finishes under another number is no longer wanted. */
  #attempt = 0;
  #failures = 0;
  #ended = false;
  /** Not before this moment, if not 0: the server asked for it. */
  #notBefore = 0;
  #heardAt = 0;
  #checkedAt = 0;
  #cancelRace = () => {};
  /** @type {Fallback|null} */
  #fallback = null;
  /** @type {any} */
  #retryTimer = null;
  /** @type {any} */
  #checkTimer = null;
  /** @type {any} */
  #joinTimer = null;
  /** @type {any} */
  #plannedTimer = null;
  /** @type {(() => void)[]} */
  #pageListeners = [];

  /**
   * @param {object} options
   * @param {string} options.server
   * @param {'auto'|'webtransport'|'websocket'} options.preference
   * @param {import('./storage.js').Store} options.store
   * @param {import('./env.js').Env} options.env
   * @param {ConnectionHandlers} options.handlers
   */
  constructor({ server, preference, store, env, handlers }) {
    this.#server = server;
    this.#preference = preference;
    this.#store = store;
    this.#env = env;
    this.#handlers = handlers;
  }

  /** The kind of the transport that is open. */
  get kind() {
    return this.#transport?.kind ?? null;
  }

  /** Why it is WebSocket and not WebTransport; null when it isn't. */
  get fallback() {
    return this.#fallback;
  }

  start() {
    this.#ended = false;
    this.#failures = 0;
    this.#notBefore = 0;
    this.#pageListeners = [
      this.#env.onPage('online', () => this.#nudge()),
      this.#env.onPage('visibilitychange', () => this.#env.hidden() || this.#nudge()),
    ];
    this.#tryNow();
  }

  /**
   * @param {any} message
   * @returns {boolean} false when there is no connection to send it on
   */
  send(message) {
    if (!this.#transport) return false;
    let json;
    try {
      json = encodeJson(message);
    } catch (error) {
      throw new TandemError('TOO_BIG', String(/** @type {Error} */ (error).message));
    }
    this.#transport.send(json);
    this.#handlers.onSent(message);
    return true;
  }

  /** @param {Uint8Array} bytes */
  sendCompact(bytes) {
    this.#transport?.sendCompact(bytes);
  }

  /** The JOIN was accepted: the next loss starts its backoff from the beginning. */
  settled() {
    this.#failures = 0;
    this.#env.clearTimeout(this.#joinTimer);
  }

  /**
   * The JOIN was refused for the moment.
   * @param {number} [afterMs]
   */
  retryLater(afterMs = 0) {
    if (afterMs > 0) this.#notBefore = this.#env.now() + afterMs;
    this.#drop('the server asked to come back later');
  }

  /**
   * Ends it for good (until `start`).
   * @param {number} code
   * @param {string} reason
   * @param {number} [lingerMs] how long to wait for the server to close first
   */
  end(code, reason, lingerMs = 0) {
    if (this.#ended) return;
    this.#ended = true;
    this.#attempt += 1;
    this.#cancelRace();
    const transport = this.#release();
    if (lingerMs > 0) this.#env.setTimeout(() => transport?.close(code, reason), lingerMs);
    else transport?.close(code, reason);
    this.#env.clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    this.#pageListeners.forEach((stop) => stop());
  }

  async #tryNow() {
    this.#env.clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
    this.#notBefore = 0;
    const attempt = ++this.#attempt;
    try {
      const endpoints = await this.#lookUp();
      if (attempt !== this.#attempt) return;
      const order = this.#order(endpoints);
      const race = openFastest(this.#openers(order, endpoints), this.#env);
      this.#cancelRace = race.cancel;
      const transport = await race.winner;
      if (attempt !== this.#attempt) return transport.close(1000, 'not wanted any more');
      this.#fallback = transport.kind === 'websocket' ? this.#reason(endpoints, order, race.failed) : null;
      this.#adopt(transport, endpoints);
    } catch {
      if (attempt === this.#attempt) this.#retry('soon');
    }
  }

  async #lookUp() {
    const abort = new AbortController();
    const timer = this.#env.setTimeout(() => abort.abort(), LOOKUP_WITHIN_MS);
    try {
      // Not from a cache: a self-signed certificate is renewed while the server runs.
      const response = await this.#env.fetch(new URL('/api/transports', this.#server).href, {
        signal: abort.signal,
        cache: 'no-store',
      });
      if (!response.ok) throw new Error(`/api/transports answered ${response.status}`);
      return await response.json();
    } finally {
      this.#env.clearTimeout(timer);
    }
  }

  /**
   * @param {any} endpoints the answer of /api/transports
   * @returns {('webtransport'|'websocket')[]} in the order in which they get their start
   */
  #order(endpoints) {
    const usable = this.#usable(endpoints);
    if (this.#preference === 'auto' && this.#store.winner(this.#env.wallNow()) === 'websocket') usable.reverse();
    return usable;
  }

  /**
   * @param {any} endpoints
   * @param {('webtransport'|'websocket')[]} order
   * @param {Set<number>} failed places in `order`
   * @returns {Fallback}
   */
  #reason(endpoints, order, failed) {
    if (this.#preference === 'websocket') return 'chosen';
    if (!this.#env.WebTransport) return 'unsupported';
    if (!endpoints.webtransport) return 'not_offered';
    if (order[0] === 'websocket') return 'remembered';
    return failed.has(order.indexOf('webtransport')) ? 'failed' : 'slow';
  }

  /**
   * @param {('webtransport'|'websocket')[]} order
   * @param {any} endpoints
   * @returns {(() => Transport)[]}
   */
  #openers(order, endpoints) {
    return order.map((kind) => () => {
      const open = kind === 'webtransport' ? openWebTransport : openWebSocket;
      /** @type {Transport} */
      const transport = open(endpoints[kind], this.#env, {
        onMessage: (json) => transport === this.#transport && this.#onMessage(json),
        onCompact: (bytes) => transport === this.#transport && this.#onCompact(bytes),
        onClose: (end) => transport === this.#transport && this.#onClose(end),
      });
      return transport;
    });
  }

  /**
   * @param {any} endpoints
   * @returns {('webtransport'|'websocket')[]} best first
   */
  #usable(endpoints) {
    /** @type {('webtransport'|'websocket')[]} */
    const kinds = [];
    if (this.#preference !== 'websocket' && endpoints.webtransport && this.#env.WebTransport) kinds.push('webtransport');
    if (this.#preference !== 'webtransport' && endpoints.websocket && this.#env.WebSocket) kinds.push('websocket');
    return kinds;
  }

  /**
   * @param {Transport} transport
   * @param {any} endpoints
   */
  #adopt(transport, endpoints) {
    // Only a race that had a choice says anything about the network.
    if (this.#usable(endpoints).length > 1) this.#store.keepWinner(transport.kind, this.#env.wallNow());
    this.#transport = transport;
    this.#heardAt = this.#checkedAt = this.#env.now();
    this.#checkTimer = this.#env.setTimeout(() => this.#check(), PING_EVERY_MS);
    this.#joinTimer = this.#env.setTimeout(() => this.#drop('no answer to JOIN'), JOIN_WITHIN_MS);
    this.#handlers.onOpen();
  }

  /** @param {string} json */
  #onMessage(json) {
    this.#heardAt = this.#env.now();
    let message;
    try {
      message = JSON.parse(json);
    } catch {
      return; // Not ours to repair; a message that mattered shows up as a gap.
    }
    if (message === null || typeof message !== 'object') return;
    if (message.type === 'RECONNECT') this.#plan(message.afterMs);
    this.#handlers.onMessage(message);
  }

  /** @param {Uint8Array} bytes */
  #onCompact(bytes) {
    this.#heardAt = this.#env.now();
    this.#handlers.onCompact(bytes);
  }

  /** @param {{code: number, reason: string}} end */
  #onClose({ code, reason }) {
    const retry = retryAfterClose(code);
    if (retry === 'never') {
      this.end(code, reason);
      this.#handlers.onEnd({ code, reason });
      return;
    }
    this.#release();
    this.#handlers.onDown();
    this.#retry(retry);
  }

  /**
   * The server will stop. The session is good until it does; the room plays on meanwhile.
   * @param {unknown} afterMs
   */
  #plan(afterMs) {
    const wait = typeof afterMs === 'number' && afterMs >= 0 ? Math.min(afterMs, 60_000) : 0;
    this.#notBefore = this.#env.now() + wait;
    this.#env.clearTimeout(this.#plannedTimer);
    this.#plannedTimer = this.#env.setTimeout(() => this.#drop('the server stops'), wait);
  }

  /** @param {string} reason */
  #drop(reason) {
    const transport = this.#release();
    if (!transport) return;
    transport.close(CLOSE_DROPPED, reason);
    this.#handlers.onDown();
    this.#retry('soon');
  }

  /** Lets go of the current transport and of everything that was timed by it. */
  #release() {
    const transport = this.#transport;
    this.#transport = null;
    for (const timer of [this.#checkTimer, this.#joinTimer, this.#plannedTimer]) this.#env.clearTimeout(timer);
    return transport;
  }

  /** @param {'soon'|'later'} when */
  #retry(when) {
    if (this.#ended) return;
    const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_FIRST_MS * 2 ** this.#failures);
    this.#failures += 1;
    const floor = when === 'later' ? BACKOFF_LATER_MS : 0;
    const jittered = Math.max(ceiling, floor) * (0.5 + this.#env.random() / 2);
    // A moment that the server gave is jittered already, and there is no failure to back off from.
    const delay = this.#notBefore > 0 ? Math.max(0, this.#notBefore - this.#env.now()) : jittered;
    if (when === 'later') this.#notBefore = this.#env.now() + delay;
    this.#env.clearTimeout(this.#retryTimer);
    this.#retryTimer = this.#env.setTimeout(() => this.#tryNow(), delay);
  }

  /** The network or the page came back: no reason to wait any longer, or to trust the line blindly. */
  #nudge() {
    const now = this.#env.now();
    if (this.#retryTimer !== null && now >= this.#notBefore) this.#tryNow();
    if (this.#transport) {
      this.#heardAt = Math.min(this.#heardAt, now - MOST_SILENCE_MS + SILENCE_AFTER_WAKING_MS);
      this.#checkedAt = now;
      this.#check();
    }
  }

  #check() {
    this.#env.clearTimeout(this.#checkTimer);
    const now = this.#env.now();
    // A page that was frozen finds its timers late, and its mail unread.
    const wokeLate = now - this.#checkedAt > PING_EVERY_MS + WOKE_LATE_MS;
    if (wokeLate) this.#heardAt = Math.max(this.#heardAt, now - MOST_SILENCE_MS + SILENCE_AFTER_WAKING_MS);
    this.#checkedAt = now;
    const left = this.#heardAt + MOST_SILENCE_MS - now;
    if (left <= 0) return this.#drop('the server is silent');
    this.send({ type: 'PING', timestamp: Math.round(this.#env.wallNow()) });
    this.#checkTimer = this.#env.setTimeout(() => this.#check(), Math.min(PING_EVERY_MS, left));
  }
}
