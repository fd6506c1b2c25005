/**
 * One membership of one room, kept over as many connections as it takes: JOIN on every new one, resume with the token,
 * notice gaps, and see that no request is silently lost.
 *
 * A page that is suspended (`pagehide`, `freeze`) closes its connection, so its member is disconnected and has the
 * grace time. When the page is back (`pageshow`, `resume`) the session takes its seat again (seat.js) and resumes.
 */
import { baseOf } from './address.js';
import { RoomClock } from './clock.js';
import { Connection } from './connection.js';
import { SUPERSEDED, TandemError, codeOfLeaving, endsMembership, isPassingRefusal } from './errors.js';
import { RoomModel } from './model.js';
import { beginMove } from './move.js';
import { Requests } from './requests.js';
import { takeSeat } from './seat.js';
import { sha256 } from './sha256.js';
import { Store } from './storage.js';
import { decodeCompact, unbundle } from './wire.js';

const PROTOCOL = 3;
const SYNC_WITHIN_MS = 5000;
const KEEP_EVERY_MS = 500;
/** A digest comes once a second: without one for this long, the room is large no more. */
const DIGEST_FOR_MS = 3500;
/** What ROOM_STATE says of room time may be this old. */
const ROOM_TIME_OFF_MS = 200;
/** A WebTransport session that is closed at once loses the LEAVE that was just written. */
const LEAVE_WITHIN_MS = 1000;
/** The server takes it for a lost connection, and keeps the membership for the grace time. */
const CLOSE_DETACHED = 4004;

/** Refusals after which another PIN may help. */
const PIN_REFUSALS = new Set(['PIN_REQUIRED', 'PIN_WRONG', 'PIN_THROTTLED', 'BAD_PIN_FORMAT']);

const SIGNALS = new Set(['OFFER', 'ANSWER', 'ICE_CANDIDATE']);

/**
 * @typedef {'connecting'|'joined'|'reconnecting'|'closed'} RoomState
 * @typedef {import('./requests.js').Committed} Committed
 * @typedef {{code: number|string, reason: string, retry: boolean, retryAfterMs?: number}} Closed
 *   a closing code, or the error code of a refused JOIN; `retry`: retryWithPin may help; `retryAfterMs`: when a JOIN
 *   may be tried again, where the server said so (KICKED)
 */

/** Fields that `message` events mask: people share their screens. */
const SECRETS = ['pin', 'resumeToken', 'hostKey', 'clientKey'];

export class Session {
  #roomId;
  #env;
  #emit;
  #store;
  #connection;
  #membership;
  #pin;
  #username;
  #ownId;
  #server;
  #seated;
  #keepTrying;
  #asViewer;
  /** SHA-256 of the host key that owns the room: the invitation's, then the room's. @type {string|null} */
  #owner;
  /** @type {import('./seat.js').Seat|null} */
  #seat = null;
  /** Number of the latest request for a seat; answers to earlier ones are ignored. */
  #seatRequest = 0;
  #joinedOnce = false;
  #triedNewId = false;
  #requests;
  #nextRef = 1;
  #joinRef = 0;
  #changeQueued = false;
  #suspended = false;
  #connected = false;
  /** To a fresh session, under way. @type {import('./move.js').Move|null} */
  #move = null;
  #moves = 0;
  /** @type {any} */
  #syncTimer = null;
  /** @type {any} */
  #keepTimer = null;
  /** @type {any} */
  #digestTimer = null;
  /** @type {(() => void)[]} */
  #pageListeners = [];
  #settleReady = { resolve: () => {}, reject: (/** @type {TandemError} */ _error) => {} };

  /** @type {RoomState} */
  state = 'connecting';
  /** @type {Promise<void>} */
  ready;

  /**
   * @param {import('./room.js').ConnectOptions} options
   * @param {import('./env.js').Env} env
   * @param {(type: string, detail?: unknown) => void} emit
   */
  constructor(options, env, emit) {
    this.#roomId = options.roomId;
    this.#env = env;
    this.#requests = new Requests(env);
    this.#emit = emit;
    const storage = options.storage === undefined ? env.defaultStorage() : options.storage;
    this.#server = baseOf(options.server).href.slice(0, -1);
    this.#store = new Store(storage, this.#server);
    this.#pin = options.pin ?? null;
    this.#username = options.username;
    this.#keepTrying = options.keepTrying === true;
    this.#asViewer = options.as === 'viewer';
    // A link may have been cut: a damaged owner is ignored, and doesn't keep its visitor out.
    this.#owner = /^[\w-]{43}$/.test(options.owner ?? '') ? (options.owner ?? null) : null;
    this.#ownId = options.userId === undefined;
    // Only a storage that is shared among tabs needs seats.
    this.#seated = this.#ownId && storage !== null && env.locks !== undefined;
    const userId = options.userId ?? (this.#seated ? '' : this.#store.userId(env.uuid));
    this.#membership = this.#store.membership(options.roomId, userId);
    this.model = new RoomModel(this.#membership);
    this.model.userId = userId;
    this.#connection = new Connection({
      server: options.server,
      preference: options.transport ?? 'auto',
      store: this.#store,
      env,
      handlers: {
        onOpen: () => this.#onOpen(),
        onMessage: (message) => this.#onMessage(message),
        onCompact: (bytes) => unbundle(bytes).forEach((message) => this.#onCompact(message)),
        onDown: () => this.#onDown(),
        onEnd: ({ code, reason }) => this.#finish({ code, reason, retry: false }),
        onTrouble: (why) => this.#onTrouble(why),
        onSent: (message) => this.#log('out', message),
        onWorn: () => this.#beginMove(),
        onReplaced: () => this.#move?.oldEnded() ?? false,
      },
    });
    this.clock = new RoomClock(env, (bytes) => this.#probe(bytes), () => emit('clock'), (ms) => this.#connection.woke(ms));
    this.ready = this.#newReady();
    this.#begin();
  }

  get transport() {
    return this.#connection.kind;
  }

  get username() {
    return this.model.member(this.model.userId)?.username ?? this.#username ?? '';
  }

  /** Used from the next JOIN on; the server is told by a request of its own. @param {string} username */
  rememberUsername(username) {
    this.#username = username;
  }

  /** Rejoining after a long outage needs it. @param {string|null} pin */
  rememberPin(pin) {
    this.#pin = pin;
  }

  /**
   * @param {any} message
   * @returns {Promise<Committed>}
   */
  request(message) {
    if (this.state === 'closed') return Promise.reject(new TandemError('CLOSED', 'this room is closed'));
    if (this.state !== 'joined') return Promise.reject(new TandemError('DISCONNECTED', 'not in the room at the moment'));
    const ref = this.#nextRef++;
    return this.#requests.add(ref, () => this.send({ ...message, ref }));
  }

  /**
   * Sends a message on the session in use, or keeps it for the one that replaces it.
   * @param {any} message
   * @returns {boolean} false when there is no connection to send it on
   */
  send(message) {
    if (!this.#move?.holds) return this.#connection.send(message);
    this.#connection.encode(message);
    this.#move.hold(message);
    return true;
  }

  /** @param {Uint8Array} bytes */
  sendCompact(bytes) {
    this.#connection.sendCompact(bytes);
    this.#log('out', decodeCompact(bytes), true);
  }

  /** @param {Uint8Array} bytes a clock probe */
  #probe(bytes) {
    this.#connection.probe(bytes);
    this.#log('out', decodeCompact(bytes), true);
  }

  /** The model was touched: one 'change' for all that happens in this turn. */
  changed() {
    if (this.#changeQueued) return;
    this.#changeQueued = true;
    queueMicrotask(() => {
      this.#changeQueued = false;
      this.#emit('change');
    });
  }

  leave() {
    if (this.state === 'closed') return;
    this.#connection.send({ type: 'LEAVE' });
    this.#move?.leave();
    this.#membership.resumeToken = null;
    this.#store.forgetMembership(this.#roomId, this.#membership.userId);
    this.#connection.end(1000, 'left', LEAVE_WITHIN_MS);
    this.#finish({ code: 1000, reason: 'left', retry: false });
  }

  /** Ends the connection, not the membership. */
  detach() {
    if (this.state === 'closed') return;
    this.#connection.end(CLOSE_DETACHED, 'detached');
    this.#finish({ code: CLOSE_DETACHED, reason: 'detached', retry: false });
  }

  /**
   * @param {string} pin
   * @returns {Promise<void>}
   */
  retryWithPin(pin) {
    this.#pin = pin;
    if (this.state !== 'closed') return this.ready;
    this.ready = this.#newReady();
    this.#setState(this.#joinedOnce ? 'reconnecting' : 'connecting');
    this.#begin();
    return this.ready;
  }

  #begin() {
    const [suspend, resume] = [() => this.#suspend(), () => this.#resume()];
    this.#pageListeners = [
      this.#env.onPage('pagehide', suspend),
      this.#env.onPage('freeze', suspend),
      this.#env.onPage('resume', resume),
      this.#env.onPage('pageshow', resume),
      this.#env.onPage('visibilitychange', () => this.#env.hidden() || this.#resyncClock()),
    ];
    this.#connected = false;
    this.#withSeat(() => this.#connect());
  }

  #connect() {
    if (this.#connected) return this.#connection.resume();
    this.#connected = true;
    this.#connection.start();
  }

  /**
   * Takes a seat where one is needed, then calls `go`; not if the session was suspended or ended meanwhile.
   * @param {() => void} go
   */
  #withSeat(go) {
    if (!this.#seated || this.#seat) return go();
    const mine = ++this.#seatRequest;
    takeSeat({ env: this.#env, store: this.#store, server: this.#server, roomId: this.#roomId }).then((seat) => {
      if (mine !== this.#seatRequest || this.state === 'closed') return seat.release();
      this.#seat = seat;
      if (seat.userId !== this.#membership.userId) this.#useUserId(seat.userId);
      go();
    });
  }

  #releaseSeat() {
    this.#seatRequest += 1;
    this.#seat?.release();
    this.#seat = null;
  }

  /** @param {string} userId */
  #useUserId(userId) {
    this.#membership = this.#store.membership(this.#roomId, userId);
    this.model.userId = userId;
  }

  #suspend() {
    this.#keepMembership();
    this.#suspended = true;
    this.#connection.suspend();
    this.#releaseSeat();
  }

  #resume() {
    if (!this.#suspended) return;
    this.#suspended = false;
    this.#withSeat(() => this.#connect());
  }

  /**
   * The first connection doesn't come.
   * @param {TandemError} why
   */
  #onTrouble(why) {
    this.#emit('error', why);
    const { reject } = this.#settleReady;
    if (this.#keepTrying) {
      this.ready = this.#newReady();
      return reject(why);
    }
    reject(why);
    this.#connection.end(1000, why.code);
    this.#finish({ code: why.code, reason: why.message, retry: false });
  }

  #newReady() {
    const ready = /** @type {Promise<void>} */ (
      new Promise((resolve, reject) => (this.#settleReady = { resolve, reject }))
    );
    // An application may listen for events instead: no unhandled rejection then.
    ready.catch(() => {});
    return ready;
  }

  #onOpen() {
    this.model.degraded = false;
    this.#resyncClock();
    this.#join();
  }

  #join() {
    const fallback = this.#connection.fallback;
    this.#joinRef = this.#nextRef++;
    this.#connection.send({ ...this.#joinMessage(), ...(fallback !== null && { fallback }), ref: this.#joinRef });
  }

  #joinMessage() {
    const { userId, resumeToken, epoch, lastSeq } = this.#membership;
    // Who was audience stays it, although a place may be free by now: nobody becomes a member by a lost connection.
    const watches = this.#joinedOnce ? this.model.role === 'audience' : this.#asViewer;
    return {
      type: 'JOIN',
      protocol: PROTOCOL,
      roomId: this.#roomId,
      userId,
      ...(this.#username !== undefined && { username: this.#username }),
      ...(this.#pin !== null && { pin: this.#pin }),
      ...(watches ? { as: 'viewer' } : resumeToken !== null && { resumeToken, epoch, lastSeq }),
      clientKey: this.#store.clientKey(this.#env.secret),
      ...this.#ownership(),
    };
  }

  /** The session in use will soon hear nothing more: replaces it by a fresh one, unseen by the others (move.js). */
  #beginMove() {
    if (this.state !== 'joined' || this.#move !== null || this.#membership.resumeToken === null) return;
    this.#move = beginMove({
      env: this.#env,
      number: ++this.#moves,
      connection: this.#connection,
      requests: this.#requests,
      join: () => {
        const join = { ...this.#joinMessage(), move: true, fallback: 'credit', ref: this.#nextRef++ };
        this.#log('out', join);
        return join;
      },
      over: () => (this.#move = null),
    });
  }

  #endMove() {
    if (this.#move === null) return;
    this.#move.cancel();
    this.#move = null;
    this.#connection.moveFailed(false, false);
  }

  /**
   * A client that opens a room owns it by its own key, or opens it for the owner that the invitation names. In the
   * second case a key that isn't that owner's stays unsaid, or it would own the room.
   */
  #ownership() {
    const kept = this.#store.hostKey(this.#roomId);
    if (this.#owner === null) return { hostKey: kept ?? this.#store.makeHostKey(this.#roomId, this.#env.secret) };
    return { owner: this.#owner, ...(kept !== null && sha256(kept) === this.#owner && { hostKey: kept }) };
  }

  #onDown() {
    this.#endMove();
    this.clock.stop();
    this.#env.clearTimeout(this.#syncTimer);
    this.#syncTimer = null;
    this.#requests.rejectAll('DISCONNECTED', 'the connection was lost before the server answered');
    this.#dropDigest();
    this.#keepMembership();
    this.#setState(this.#joinedOnce ? 'reconnecting' : 'connecting');
  }

  /** @param {any} message */
  #onMessage(message) {
    this.#log('in', message);
    this.#apply(message);
    this.#move?.takeOld(message);
  }

  /** @param {any} message */
  #apply(message) {
    if (message.type === 'ACK') return this.#requests.resolve(message.ref, { epoch: message.epoch, seq: message.seq });
    if (message.type === 'ERROR') return this.#onError(message);
    const outcome = this.model.apply(message);
    if (outcome.gap) this.#requestSync();
    if (message.type === 'ROOM_STATE') this.#onRoomState(message);
    if (Number.isInteger(message.seq)) this.#rememberPlace();
    this.#publish(outcome);
    if (message.type === 'USER_LEFT' && message.userId === this.model.userId) this.#onOwnLeaving(message.reason);
  }

  /**
   * Kicked or banned, as the room says it, in order: that is the end, whatever the transport makes of its close.
   * @param {unknown} why
   */
  #onOwnLeaving(why) {
    const code = codeOfLeaving(why);
    if (code === null || this.state === 'closed') return;
    const reason = `${why} by the host`;
    this.#connection.end(code, reason);
    this.#finish({ code, reason, retry: false });
  }

  /** @param {any} state */
  #onRoomState(state) {
    this.#env.clearTimeout(this.#syncTimer);
    this.#syncTimer = null;
    if (typeof state.owner === 'string') this.#owner = state.owner;
    if (state.role === 'audience' && this.#membership.resumeToken !== null) this.#endMembership();
    if (typeof state.resumeToken === 'string') {
      this.#membership.resumeToken = state.resumeToken;
      this.#membership.epoch = state.epoch;
      this.#membership.lastSeq = state.seq;
      // At once: without the newest token a crash of this page would cost the membership.
      this.#store.keepMembership(this.#roomId, this.#membership);
    }
    // Room time was stepped, which the server says by sending the whole state.
    const off = Math.abs(Number(state.roomTime) - this.clock.roomTime());
    if (this.clock.synced && off > ROOM_TIME_OFF_MS + this.clock.rtt) this.#resyncClock();
    this.#connection.settled();
    this.#joinRef = 0;
    this.#joinedOnce = true;
    this.#setState('joined');
    this.#settleReady.resolve();
  }

  /** @param {any} message */
  #onError(message) {
    const error = TandemError.fromMessage(message);
    const refusedJoin = this.#joinRef !== 0 && (message.ref === this.#joinRef || message.request === 'JOIN');
    if (refusedJoin) return this.#onRefusal(error);
    if (this.#requests.reject(message.ref, error)) return;
    // Signaling to somebody who has just left: USER_LEFT says the same, in order.
    if (error.code === 'TARGET_GONE' && SIGNALS.has(error.request ?? '')) return;
    this.#emit('error', error);
  }

  /** @param {TandemError} error */
  #onRefusal(error) {
    this.#joinRef = 0;
    if (error.code === 'TOKEN_INVALID' && this.#membership.resumeToken !== null) {
      // The membership that it was for is over; join as anybody would.
      this.#membership.resumeToken = null;
      this.#store.forgetMembership(this.#roomId, this.#membership.userId);
      return this.#join();
    }
    if (error.code === 'USER_ID_TAKEN' && this.#ownId && !this.#triedNewId) {
      // This client's own random id is in use, and the proof that it is ours is lost: take another one.
      this.#triedNewId = true;
      if (!this.#seated) {
        this.#useUserId(this.#store.renewUserId(this.#env.uuid));
        return this.#join();
      }
      this.#releaseSeat();
      this.#store.dropUserId(this.#membership.userId);
      return this.#withSeat(() => this.#connection.kind !== null && this.#join());
    }
    if (isPassingRefusal(error.code)) return this.#connection.retryLater(error);
    this.#connection.end(1000, error.code);
    this.#emit('error', error);
    this.#settleReady.reject(error);
    const { code, message: reason, retryAfterMs } = error;
    const retry = PIN_REFUSALS.has(code);
    this.#finish({ code, reason, retry, ...(retryAfterMs !== undefined && { retryAfterMs }) });
  }

  /** @param {Uint8Array} bytes */
  #onCompact(bytes) {
    const message = decodeCompact(bytes);
    if (message === null) return;
    this.#log('in', message, true);
    if (message.kind === 'reply') this.clock.onReply(message);
    else if (message.kind === 'tick') this.#publish(this.model.applyTick(message));
    else if (message.kind === 'status') this.#publish(this.model.applyStatus(message));
    else if (message.kind === 'digest') this.#onDigest(message);
  }

  /** @param {import('./wire.js').Digest} digest */
  #onDigest(digest) {
    this.#env.clearTimeout(this.#digestTimer);
    this.#digestTimer = this.#env.setTimeout(() => this.#dropDigest(), DIGEST_FOR_MS);
    this.#publish(this.model.applyDigest(digest));
  }

  #dropDigest() {
    this.#env.clearTimeout(this.#digestTimer);
    if (this.model.digest !== null) this.#publish(this.model.dropDigest());
  }

  #resyncClock() {
    if (this.#connection.kind !== null) this.clock.resync();
  }

  /** Sent once for a gap: the answer covers the events that arrive before it. */
  #requestSync() {
    if (this.#syncTimer !== null || this.state !== 'joined') return;
    this.send({ type: 'REQUEST_SYNC' });
    this.#syncTimer = this.#env.setTimeout(() => {
      this.#syncTimer = null;
      this.#requestSync();
    }, SYNC_WITHIN_MS);
  }

  /** @param {Closed} closed */
  #finish(closed) {
    this.#endMove();
    this.clock.stop();
    this.#env.clearTimeout(this.#digestTimer);
    this.#env.clearTimeout(this.#syncTimer);
    this.#syncTimer = null;
    this.#requests.rejectAll(closed.reason === 'left' ? 'CLOSED' : 'DISCONNECTED', 'the room was closed before the server answered');
    if (closed.code === SUPERSEDED) this.#membership.resumeToken = null; // It is another page's now.
    if (endsMembership(closed.code)) this.#endMembership();
    this.#keepMembership();
    this.#pageListeners.forEach((stop) => stop());
    this.#releaseSeat();
    this.#settleReady.reject(new TandemError('CLOSED', closed.reason || `closed with ${closed.code}`));
    this.#setState('closed');
    this.#emit('closed', closed);
  }

  #rememberPlace() {
    this.#membership.epoch = this.model.epoch;
    this.#membership.lastSeq = this.model.seq;
    // Storage is synchronous and slow; what a crash loses of this is a few lines of chat seen twice.
    this.#keepTimer ??= this.#env.setTimeout(() => this.#keepMembership(), KEEP_EVERY_MS);
  }

  #keepMembership() {
    this.#env.clearTimeout(this.#keepTimer);
    this.#keepTimer = null;
    if (this.#membership.resumeToken !== null) this.#store.keepPlace(this.#roomId, this.#membership);
  }

  #endMembership() {
    this.#store.forgetOwnMembership(this.#roomId, this.#membership);
    this.#membership.resumeToken = null;
  }

  /** @param {import('./model.js').Outcome} outcome */
  #publish({ changed, events }) {
    for (const [type, detail] of events) this.#emit(type, detail);
    if (changed) this.changed();
  }

  /** @param {RoomState} state */
  #setState(state) {
    if (this.state === state) return;
    this.state = state;
    this.#emit('state', state);
    this.changed();
  }

  /**
   * @param {'in'|'out'} direction
   * @param {any} message
   * @param {boolean} [compact]
   */
  #log(direction, message, compact) {
    const masked = { ...message };
    for (const secret of SECRETS) if (typeof masked[secret] === 'string') masked[secret] = '…';
    this.#emit('message', { direction, message: masked, ...(compact && { compact }) });
  }
}
