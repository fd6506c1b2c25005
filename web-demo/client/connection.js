/**
 * A connection that comes back: opens one (dial.js), and reconnects with backoff until it is told to stop. It knows
 * nothing of rooms; what a session says is the room's business.
 *
 * A line in doubt (liveness.js) is kept until another one is open beside it: make before break. If it speaks before
 * that, the other one is given up, and nobody has noticed anything.
 *
 * A page that is hidden for good (`suspend`: the back/forward cache, a frozen tab) closes its connection, because the
 * network stack would keep it alive.
 *
 * @typedef {import('./transports.js').Transport} Transport
 * @typedef {import('./choice.js').Fallback} Fallback
 *
 * @typedef {object} ConnectionHandlers
 * @property {() => void} onOpen                     a fresh session: say JOIN
 * @property {(message: any) => void} onMessage
 * @property {(bytes: Uint8Array) => void} onCompact
 * @property {() => void} onDown                     the session is gone, another one will follow
 * @property {(end: {code: number, reason: string}) => void} onEnd  gone for good
 * @property {(why: TandemError) => void} onTrouble  the first connection isn't there after 10 s, or can't be;
 *   it goes on trying unless told to end
 * @property {(message: any) => void} onSent         for the event log
 * @property {() => void} onWorn                     the session will soon hear nothing more (WebKit): move on
 * @property {() => boolean} onReplaced              the session in use ended; whether a move takes care of that
 */
import { Beside } from './beside.js';
import { Dialer } from './dial.js';
import { SUPERSEDED, TandemError, retryAfterClose } from './errors.js';
import { Liveness } from './liveness.js';
import { unreachable } from './lookup.js';
import { NO_CODE, openWebSocket, openWebTransport } from './transports.js';
import { encodeJson } from './wire.js';

const JOIN_WITHIN_MS = 10_000;
/** The first connection is reported as failed after this long: 10 s are promised. */
const FIRST_WITHIN_MS = 9500;

const BACKOFF_FIRST_MS = 300;
const BACKOFF_CAP_MS = 10_000;
const BACKOFF_LATER_MS = 5000;

/** This client dropped the connection (silence, a planned move, a suspended page) and will resume: not a LEAVE. */
const CLOSE_DROPPED = 4004;

export class Connection {
  #server;
  #env;
  #handlers;
  /** @type {Transport|null} */
  #transport = null;
  #failures = 0;
  #ended = false;
  /** The page is suspended: nothing is tried. */
  #suspended = false;
  /** Whether a JOIN was accepted since `start`. */
  #settledOnce = false;
  #reported = false;
  /** Why the last try failed. @type {TandemError|null} */
  #trouble = null;
  /**
   * The end that the server announced in order, ahead of the transport's.
   * @type {{code: number, reason: string}|null}
   */
  #announced = null;
  /** Not before this moment, if not 0: the server asked for it. */
  #notBefore = 0;
  #dialer;
  /** The attempt that is under way. @type {{cancel: () => void}|null} */
  #dialing = null;
  /** A JOIN was accepted on the present connection. */
  #settled = false;
  #liveness;
  #beside;
  /** A move failed half-way: the server may close the session in use as replaced, and no other page did that. */
  #maybeReplaced = false;
  /** @type {Fallback|null} */
  #fallback = null;
  /** @type {any} */
  #retryTimer = null;
  /** @type {any} */
  #joinTimer = null;
  /** @type {any} */
  #plannedTimer = null;
  /** @type {any} */
  #firstTimer = null;
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
    this.#dialer = new Dialer({ server, preference, store, env, open: (kind, endpoint) => this.#open(kind, endpoint) });
    this.#env = env;
    this.#handlers = handlers;
    this.#beside = new Beside(env);
    this.#liveness = new Liveness(env, {
      ask: () => this.send({ type: 'PING', timestamp: Math.round(env.wallNow()) }),
      onDoubt: () => this.#onDoubt(),
      onRelief: () => this.#onRelief(),
      onSilent: () => this.#drop('the server is silent'),
    });
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
    this.#suspended = false;
    this.#settledOnce = false;
    this.#failures = 0;
    this.#notBefore = 0;
    this.#trouble = null;
    this.#awaitFirst();
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
    this.#transport.send(this.encode(message));
    this.#handlers.onSent(message);
    return true;
  }

  /**
   * The bytes of a message; throws if they are too many.
   * @param {any} message
   */
  encode(message) {
    try {
      return encodeJson(message);
    } catch (error) {
      throw new TandemError('TOO_BIG', String(/** @type {Error} */ (error).message));
    }
  }

  /** @param {Uint8Array} bytes */
  sendCompact(bytes) {
    this.#transport?.sendCompact(bytes);
  }

  /** A clock probe: the server answers it at once. @param {Uint8Array} bytes */
  probe(bytes) {
    this.sendCompact(bytes);
    if (this.#transport) this.#liveness.noteAsked();
  }

  /**
   * The page's steady clock stood still.
   * @param {number} ms for so long
   */
  woke(ms) {
    if (this.#transport) this.#liveness.wake(ms);
  }

  /**
   * Opens a fresh session beside the one in use.
   * @param {import('./beside.js').FreshTaker} taker
   */
  openBeside(taker) {
    return this.#beside.open(taker, this.#dialer.dial(false));
  }

  /**
   * The fresh session replaces the one in use, which is over or says nothing that counts any more.
   * @param {Transport} fresh
   */
  switchTo(fresh) {
    this.#giveUpAttempt();
    this.#release()?.close(CLOSE_DROPPED, 'moved to a fresh session');
    this.#hold(fresh);
  }

  /**
   * The move failed or was given up; the session in use goes on, unless it is `lost`.
   * @param {boolean} unsure  whether the server may have moved the member all the same
   * @param {boolean} lost
   */
  moveFailed(unsure, lost) {
    this.#beside.failed();
    this.#maybeReplaced ||= unsure;
    if (lost) this.#drop('lost while moving to a fresh session');
  }

  /**
   * Takes in what a session said while it was not in use yet.
   * @param {string|Uint8Array} said
   */
  takeIn(said) {
    if (!this.#transport) return;
    if (typeof said === 'string') this.#onMessage(said);
    else this.#onCompact(said);
  }

  /** The JOIN was accepted: the next loss starts its backoff from the beginning. */
  settled() {
    this.#failures = 0;
    this.#settled = true;
    this.#settledOnce = true;
    this.#env.clearTimeout(this.#firstTimer);
    this.#env.clearTimeout(this.#joinTimer);
  }

  /**
   * The JOIN was refused for the moment.
   * @param {TandemError} why
   */
  retryLater(why) {
    const afterMs = why.retryAfterMs ?? 0;
    this.#trouble = why;
    if (afterMs > 0) this.#notBefore = this.#env.now() + afterMs;
    this.#drop('the server asked to come back later');
  }

  /** The page is suspended: closes the connection, and tries nothing until `resume`. */
  suspend() {
    if (this.#ended || this.#suspended) return;
    this.#suspended = true;
    this.#giveUpAttempt();
    this.#env.clearTimeout(this.#firstTimer);
    const transport = this.#release();
    if (!transport) return;
    transport.close(CLOSE_DROPPED, 'the page is suspended');
    this.#handlers.onDown();
  }

  /** The page is back. */
  resume() {
    if (this.#ended || !this.#suspended) return;
    this.#suspended = false;
    this.#failures = 0;
    if (!this.#settledOnce) this.#awaitFirst();
    this.#tryNow();
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
    this.#giveUpAttempt();
    const transport = this.#release();
    if (lingerMs > 0) this.#env.setTimeout(() => transport?.close(code, reason), lingerMs);
    else transport?.close(code, reason);
    this.#env.clearTimeout(this.#firstTimer);
    this.#pageListeners.forEach((stop) => stop());
  }

  /** Reports the first connection as failed if it doesn't come in time: an application waits for `ready`. */
  #awaitFirst() {
    this.#reported = false;
    this.#env.clearTimeout(this.#firstTimer);
    this.#firstTimer = this.#env.setTimeout(() => this.#report(), FIRST_WITHIN_MS);
  }

  #report() {
    this.#env.clearTimeout(this.#firstTimer);
    if (this.#ended || this.#settledOnce || this.#reported) return;
    this.#reported = true;
    const silent = this.#transport ? noAnswerToJoin() : unreachable(`${this.#server} has not answered`);
    this.#handlers.onTrouble(this.#trouble ?? silent);
  }

  async #tryNow() {
    if (this.#suspended) return;
    this.#giveUpAttempt();
    this.#notBefore = 0;
    const began = this.#env.now();
    const dialing = this.#dialer.dial(this.#transport !== null);
    this.#dialing = dialing;
    try {
      const { transport, fallback } = await dialing.opened;
      if (dialing !== this.#dialing) return transport.close(1000, 'not wanted any more');
      this.#dialing = null;
      this.#fallback = fallback;
      this.#adopt(transport);
    } catch (error) {
      if (dialing !== this.#dialing) return;
      this.#dialing = null;
      this.#trouble = error instanceof TandemError ? error : unreachable(String(error));
      this.#retry('soon', this.#env.now() - began);
      // Another try doesn't help against ORIGIN_REFUSED and NO_TRANSPORT.
      if (this.#trouble.code !== 'UNREACHABLE') this.#report();
    }
  }

  /**
   * @param {'webtransport'|'websocket'} kind
   * @param {any} endpoint
   */
  #open(kind, endpoint) {
    const open = kind === 'webtransport' ? openWebTransport : openWebSocket;
    /** @type {Transport} */
    const transport = open(endpoint, this.#env, {
      onMessage: (json) => (transport === this.#transport ? this.#onMessage(json) : this.#beside.takerOf(transport)?.takeFresh(json)),
      onCompact: (bytes) =>
        transport === this.#transport ? this.#onCompact(bytes) : this.#beside.takerOf(transport)?.takeFreshCompact(bytes),
      onClose: (end) => (transport === this.#transport ? this.#onClose(end) : this.#beside.takerOf(transport)?.freshEnded()),
    });
    return transport;
  }

  /** Goes on with a connection that has just opened, in place of one in doubt. @param {Transport} transport */
  #adopt(transport) {
    const last = this.#release();
    if (last) {
      last.close(CLOSE_DROPPED, 'moved to another connection');
      this.#handlers.onDown();
    }
    this.#hold(transport);
    this.#settled = false;
    this.#trouble = null;
    this.#joinTimer = this.#env.setTimeout(() => {
      this.#trouble = noAnswerToJoin();
      this.#drop('no answer to JOIN');
    }, JOIN_WITHIN_MS);
    this.#handlers.onOpen();
  }

  /** @param {Transport} transport */
  #hold(transport) {
    this.#transport = transport;
    this.#announced = null;
    this.#maybeReplaced = false;
    this.#beside.clear();
    this.#liveness.start();
  }

  /** @param {string} json */
  #onMessage(json) {
    this.#liveness.noteHeard();
    let message;
    try {
      message = JSON.parse(json);
    } catch {
      return; // If the message was an event, its missing `seq` shows as a gap.
    }
    if (message === null || typeof message !== 'object') return;
    // Answered here, in the message handler: browsers throttle the timers of a hidden tab, not its messages.
    if (message.type === 'PROBE') this.send({ type: 'ALIVE', id: message.id });
    if (message.type === 'RECONNECT') this.#plan(message.afterMs);
    this.#handlers.onMessage(message);
    if (message.type === 'CLOSING') this.#announce(message);
    else this.#checkCredit();
  }

  /** WebKit's credit for received stream data is never refilled: the session is replaced before it is used up. */
  #checkCredit() {
    const due = this.#beside.due(this.#transport?.received ?? 0);
    if (due === 'move') this.#handlers.onWorn();
    if (due === 'reconnect') this.#drop('the receive credit is used up');
  }

  /** @param {Uint8Array} bytes */
  #onCompact(bytes) {
    this.#liveness.noteHeard();
    this.#handlers.onCompact(bytes);
  }

  /**
   * CLOSING: the server closes. Its code came in the order of the messages and counts more than the transport's own,
   * because Chromium may report a WebTransport session as lost that was closed with a code.
   * @param {any} message
   */
  #announce({ code, reason }) {
    if (!Number.isInteger(code)) return;
    this.#announced = { code, reason: typeof reason === 'string' ? reason : '' };
    if (this.#retryAfter(code) === 'never' || code === SUPERSEDED) this.#onClose(this.#announced);
  }

  /** @param {{code: number, reason: string}} end */
  #onClose(end) {
    if (this.#handlers.onReplaced()) return;
    const { code, reason } = end.code === NO_CODE ? (this.#announced ?? end) : end;
    const retry = this.#retryAfter(code);
    if (retry === 'never') {
      this.end(code, reason);
      this.#handlers.onEnd({ code, reason });
      return;
    }
    this.#release();
    this.#handlers.onDown();
    if (retry === 'later') this.#giveUpAttempt();
    if (this.#dialing === null) this.#retry(retry);
  }

  /** @param {number} code */
  #retryAfter(code) {
    return code === SUPERSEDED && this.#maybeReplaced ? 'soon' : retryAfterClose(code);
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
    // The attempt that a doubt began goes on, unless the server asked to come later.
    if (this.#notBefore > 0) this.#giveUpAttempt();
    if (this.#dialing === null) this.#retry('soon');
  }

  /** The line may be dead: opens another one, and keeps this one until that is there. */
  #onDoubt() {
    // A server that has not answered JOIN has its own deadline, and backoff.
    if (this.#settled && this.#dialing === null && this.#retryTimer === null) void this.#tryNow();
  }

  #onRelief() {
    this.#giveUpAttempt();
    this.#failures = 0;
  }

  /** Whatever is being opened, or is to be tried, is not wanted any more. */
  #giveUpAttempt() {
    this.#dialing?.cancel();
    this.#dialing = null;
    this.#env.clearTimeout(this.#retryTimer);
    this.#retryTimer = null;
  }

  /** Lets go of the current transport and of everything that was timed by it. */
  #release() {
    const transport = this.#transport;
    this.#transport = null;
    this.#liveness.stop();
    for (const timer of [this.#joinTimer, this.#plannedTimer]) this.#env.clearTimeout(timer);
    return transport;
  }

  /**
   * @param {'soon'|'later'} when
   * @param {number} [waited] ms that the last attempt took: a server that hangs has set the pace itself
   */
  #retry(when, waited = 0) {
    if (this.#ended || this.#suspended) return;
    const ceiling = Math.min(BACKOFF_CAP_MS, BACKOFF_FIRST_MS * 2 ** this.#failures);
    this.#failures += 1;
    const floor = when === 'later' ? BACKOFF_LATER_MS : 0;
    const jittered = Math.max(0, Math.max(ceiling, floor) * (0.5 + this.#env.random() / 2) - waited);
    // A moment that the server gave is jittered already, and there is no failure to back off from.
    const delay = this.#notBefore > 0 ? Math.max(0, this.#notBefore - this.#env.now()) : jittered;
    if (when === 'later') this.#notBefore = this.#env.now() + delay;
    this.#env.clearTimeout(this.#retryTimer);
    this.#retryTimer = this.#env.setTimeout(() => this.#tryNow(), delay);
  }

  /** The network or the page came back: retries at once, and asks on an open connection. */
  #nudge() {
    if (this.#retryTimer !== null && this.#env.now() >= this.#notBefore) void this.#tryNow();
    if (this.#transport) this.#liveness.wake();
  }
}

function noAnswerToJoin() {
  return new TandemError('TIMEOUT', 'the server has not answered JOIN');
}
