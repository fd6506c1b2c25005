/**
 * The room as an application sees it: a live model, requests that are promises, and events.
 *
 * Events (CustomEvents; what is in `detail`): `state` RoomState · `change` something in the model changed, once a turn
 * · `playback` {playback, cause, message} · `ended` {duration}: the film is over · `chat` · `custom` · `error`
 * TandemError (of what no promise is waiting for) · `closed` {code, reason, retry} · `message` {direction, message,
 * compact?} · `tick` · `digest` RoomDigest, once a second in a large room · `signal` OFFER, ANSWER, ICE_CANDIDATE ·
 * `clock` · `hand` {userId, username, raised}: to the host, of a viewer who asks for a place; to a viewer, its own.
 * Texts in them come from other people: show them as text, never as HTML.
 */
import { browserEnv } from './env.js';
import { TandemError } from './errors.js';
import { filmForRoom, resolveFilm } from './film-address.js';
import { Intention } from './intention.js';
import { positionAt } from './model.js';
import { Session } from './session.js';
import { encodeStatus, encodeTick } from './wire.js';

const AT_THE_END_S = 0.05;

/**
 * @typedef {object} ConnectOptions
 * @property {string} server     base of GET /api/transports, e.g. `location.origin`, or `https://example.org/watch/`
 * @property {string} roomId
 * @property {string} [userId]   made and kept in `storage` when absent, one for each tab
 * @property {string} [username]
 * @property {string|null} [pin]
 * @property {'auto'|'webtransport'|'websocket'} [transport]
 * @property {string|null} [owner]  owner of the room, from the invitation (the host's `room.owner`)
 * @property {'member'|'viewer'} [as]  a viewer watches without being a member; in a room that is full everybody does
 *   (`room.role`)
 * @property {boolean} [keepTrying]  go on when the server can't be reached; `ready` rejects after 10 s all the
 *   same, and `room.ready` is a new promise from then on
 * @property {Storage|null} [storage]  localStorage when absent; null keeps everything for this page only
 * @property {Partial<import('./env.js').Env>} [env]  for tests
 *
 * @typedef {import('./session.js').Committed} Committed
 *
 * @typedef {object} Decided  what the caller saw when it decided on a command, if that is not what the room shows now
 * @property {number} [film]  `room.film` at that moment
 */

/**
 * Returns the room at once; it connects in the background (`room.ready`).
 * @param {ConnectOptions} options
 */
export function connect(options) {
  return new Room(options);
}

export class Room extends EventTarget {
  #options;
  #env;
  #session;
  #intention;
  #tickSeq;
  #statusSeq;
  #inCall = false;

  /** @param {ConnectOptions} options */
  constructor(options) {
    super();
    this.#options = options;
    this.#env = { ...browserEnv(), ...options.env };
    // A counter that starts with the time of day goes on rising over a reload, for receivers that missed the reload.
    this.#tickSeq = Math.floor(this.#env.wallNow() / 100) >>> 0;
    this.#statusSeq = this.#tickSeq;
    this.#session = new Session(options, this.#env, (type, detail) => {
      this.dispatchEvent(new CustomEvent(type, { detail }));
    });
    this.#intention = new Intention(this.#session.model);
  }

  /**
   * Resolves on the first ROOM_STATE; rejects with a TandemError on a refusal that is final, or after 10 s without one.
   */
  get ready() {
    return this.#session.ready;
  }

  get state() {
    return this.#session.state;
  }

  get transport() {
    return this.#session.transport;
  }

  get roomId() {
    return this.#options.roomId;
  }

  get self() {
    const { userId, hostUserId, canControl } = this.#session.model;
    const member = this.#session.model.member(userId);
    return {
      userId,
      username: this.#session.username,
      slot: member?.slot ?? null,
      isHost: hostUserId !== null && hostUserId === userId,
      canControl,
    };
  }

  get members() {
    return this.#session.model.members;
  }

  /** Whether this client is a member, or watches only: the room was full, or `as: 'viewer'`. */
  get role() {
    return this.#session.model.role;
  }

  /** How many watch without being members. */
  get audience() {
    return this.#session.model.audience;
  }

  /** Whether this viewer has asked the host for a place. */
  get handRaised() {
    return this.#session.model.handRaised;
  }

  /** Viewers who ask for a place, as the host is shown them. */
  get hands() {
    return this.#session.model.hands;
  }

  get hostUserId() {
    return this.#session.model.hostUserId;
  }

  get guestControl() {
    return this.#session.model.guestControl;
  }

  /** The film's address, a film of the server's own resolved against the server's base. */
  get url() {
    return resolveFilm(this.#session.model.url, this.#options.server);
  }

  /** Counts the room's films: one more each time somebody chooses one. */
  get film() {
    return this.#session.model.film;
  }

  /** How long the film is, as the members' players agree on, s; null while nobody has said. */
  get duration() {
    return this.#session.model.duration;
  }

  /** Whether the room stands at the end of its film: `play()` starts it over. */
  get ended() {
    const { duration, playback } = this.#session.model;
    return duration !== null && !this.wantsPlaying && playback.position >= duration - AT_THE_END_S;
  }

  get playback() {
    return this.#session.model.playback;
  }

  get gate() {
    return this.#session.model.gate;
  }

  /**
   * Whether the room means to play: it plays, or waits at the ready gate to play on. Own commands that are under way
   * count already. `playback.playing` only says whether the film moves at this moment.
   */
  get wantsPlaying() {
    return this.#intention.playing;
  }

  /** How a large room does; null in a small one, where `members` says it of each. */
  get digest() {
    return this.#session.model.digest;
  }

  get hasPin() {
    return this.#session.model.hasPin;
  }

  get banned() {
    return this.#session.model.banned;
  }

  get epoch() {
    return this.#session.model.epoch;
  }

  get seq() {
    return this.#session.model.seq;
  }

  /** Names the room's owner without telling the key: put it into invitations, and `connect` with it. */
  get owner() {
    return this.#session.model.owner;
  }

  get degraded() {
    return this.#session.model.degraded;
  }

  get nodeId() {
    return this.#session.model.nodeId;
  }

  get clock() {
    return this.#session.clock;
  }

  /** The base of the server's HTTP endpoints. */
  get server() {
    return this.#options.server;
  }

  /** The environment for syncVideo and Call too, so that one fake clock serves a whole test. */
  get env() {
    return this.#env;
  }

  /**
   * Where the film stands, in seconds.
   * @param {number} [at] room time
   */
  positionNow(at = this.#session.clock.roomTime()) {
    return positionAt(this.#session.model.playback, at);
  }

  /**
   * At the ready gate it starts the film without waiting for the others; at the film's end, from its beginning.
   * @param {number} [position] s; the room's own when absent
   * @param {Decided} [decided]
   */
  play(position, decided = {}) {
    const place = this.#place(position ?? (this.ended ? 0 : undefined));
    const { gate } = this.#session.model;
    const basis = { ...this.#basis(decided), ...(gate && this.#session.model.countsFilms && { gate: gate.id }) };
    return this.#move(true, { type: 'PLAY_PAUSE', control: 'play', ...place, ...basis });
  }

  /**
   * @param {number} [position]
   * @param {Decided} [decided]
   */
  pause(position, decided = {}) {
    return this.#move(false, { type: 'PLAY_PAUSE', control: 'pause', ...this.#place(position), ...this.#basis(decided) });
  }

  /**
   * @param {number} position
   * @param {{playing?: boolean} & Decided} [options] whether the film goes on from there;
   *   as the room means to when absent
   */
  seek(position, { playing, ...decided } = {}) {
    // A server that counts films knows best what the room means to do, by the time the command is its turn.
    const isPlaying = playing ?? (this.#session.model.countsFilms ? undefined : this.wantsPlaying);
    const message = { type: 'SEEK', currentTime: position, ...(isPlaying !== undefined && { isPlaying }), ...this.#basis(decided) };
    return isPlaying === undefined ? this.#session.request(message) : this.#move(isPlaying, message);
  }

  /**
   * @param {boolean} playing what the command makes of the room's intention
   * @param {any} message
   */
  #move(playing, message) {
    const committed = this.#session.request(message);
    void this.#intention.ask(playing, committed);
    return committed;
  }

  /**
   * Names the film that a command was decided on: the server refuses it (`STALE`) when the room shows another by then.
   * @param {Decided} decided
   */
  #basis({ film = this.film }) {
    return this.#session.model.countsFilms ? { film } : {};
  }

  /** @param {number} rate 0.25–4 */
  setRate(rate) {
    return this.#session.request({ type: 'SET_RATE', rate, ...this.#basis({}) });
  }

  /**
   * @param {string} url
   * @param {number} [position] s
   */
  setUrl(url, position = 0) {
    // The one field of the wire that is in ms, since v2.
    const film = filmForRoom(url, this.#options.server);
    return this.#session.request({ type: 'URL_CHANGE', url: film, currentTime: Math.round(position * 1000) });
  }

  /** @param {string} username */
  rename(username) {
    this.#session.rememberUsername(username);
    return this.#session.request({ type: 'UPDATE_USERNAME', username });
  }

  /** @param {boolean} enabled */
  setGuestControl(enabled) {
    return this.#session.request({ type: 'TOGGLE_GUEST_CONTROL', enabled });
  }

  /** @param {string} targetUserId */
  transferHost(targetUserId) {
    return this.#session.request({ type: 'TRANSFER_HOST', targetUserId });
  }

  /** @param {string} targetUserId */
  kick(targetUserId) {
    return this.#session.request({ type: 'KICK', targetUserId });
  }

  /** @param {string} targetUserId */
  ban(targetUserId) {
    return this.#session.request({ type: 'BAN', targetUserId });
  }

  /** @param {string} targetUserId */
  unban(targetUserId) {
    return this.#session.request({ type: 'UNBAN', targetUserId });
  }

  /**
   * A viewer asks the host for a place, or no longer. The `hand` event confirms it; being let in changes `role`.
   * @param {boolean} [raised]
   */
  raiseHand(raised = true) {
    return this.#sendOnce({ type: 'RAISE_HAND', raised });
  }

  /**
   * The host lets a viewer with a raised hand in. A refusal (`ROOM_FULL`) arrives as an `error` event.
   * @param {string} targetUserId
   */
  invite(targetUserId) {
    return this.#sendOnce({ type: 'INVITE_TO_MEMBER', targetUserId });
  }

  /**
   * The host lowers a viewer's hand.
   * @param {string} targetUserId
   */
  declineHand(targetUserId) {
    return this.#sendOnce({ type: 'INVITE_TO_MEMBER', targetUserId, decline: true });
  }

  /** @param {string|null} pin */
  async setPin(pin) {
    const committed = await this.#session.request({ type: 'SET_PIN', pin });
    this.#session.rememberPin(pin);
    return committed;
  }

  /** @param {string} text */
  chat(text) {
    return this.#session.request({ type: 'CHAT', text });
  }

  /**
   * @param {string} namespace
   * @param {unknown} payload
   * @param {string} [to] one member only
   * @returns {Promise<Committed|void>} with `to` it isn't committed, and resolves when sent
   */
  custom(namespace, payload, to) {
    if (to === undefined) return this.#session.request({ type: 'CUSTOM', namespace, payload });
    return this.#sendOnce({ type: 'CUSTOM', namespace, payload, to });
  }

  /**
   * Tells the ready gate that this member can play from its target.
   * @param {{id: number, targetTime: number}} gate
   */
  sendReady({ id, targetTime }) {
    return this.#session.request({ type: 'READY', gateId: id, targetTime, ...this.#basis({}) });
  }

  /**
   * Tells the room whether this member can play its film: the gate waits for ready players only, and the others see who
   * can't. A server that doesn't count films doesn't know the message.
   * @param {{state: 'none'|'loading'|'ready'|'failed', reason?: string, duration?: number}} player
   * @returns {boolean} whether it was sent
   */
  sendPlayer(player) {
    if (this.#session.state !== 'joined' || !this.#session.model.countsFilms || this.role === 'audience') return false;
    return this.#session.send({ type: 'PLAYER', ...player, film: this.film });
  }

  /** @param {{driftMs: number|null, buffering: boolean}} status */
  sendStatus({ driftMs, buffering }) {
    if (this.#session.state !== 'joined') return;
    // The server writes the slot of a member; the audience has none, and counts for the digest.
    const slot = this.self.slot ?? (this.role === 'audience' ? 0 : null);
    if (slot === null) return;
    const { rtt, error } = this.#session.clock;
    this.#statusSeq = (this.#statusSeq + 1) >>> 0;
    const status = { rttMs: rtt, driftMs, clockErrorMs: error, buffering, inCall: this.#inCall };
    this.#session.model.reportSelf(status);
    this.#session.changed();
    const transport = this.#session.transport ?? 'websocket';
    this.#session.sendCompact(encodeStatus({ ...status, slot, seq: this.#statusSeq, transport }));
  }

  /** Told to the others with the next status. @param {boolean} inCall */
  setInCall(inCall) {
    this.#inCall = inCall;
  }

  /** @param {{position: number, at: number, playing: boolean, rate: number}} tick */
  sendTick(tick) {
    const { slot, isHost } = this.self;
    if (this.#session.state !== 'joined' || slot === null) return;
    this.#tickSeq = (this.#tickSeq + 1) >>> 0;
    this.#session.model.reportSelf({ position: tick.position, lastTickAt: tick.at });
    this.#session.sendCompact(encodeTick({ ...tick, slot, fromHost: isHost, seq: this.#tickSeq }));
  }

  /**
   * @param {any} message
   * @returns {Promise<void>}
   */
  async #sendOnce(message) {
    if (!this.#session.send(message)) throw new TandemError('DISCONNECTED', 'not in the room at the moment');
  }

  /**
   * Sends any message, without a promise; a refusal arrives as an `error` event.
   * @param {any} message
   */
  send(message) {
    this.#session.send(message);
  }

  /** Leaves the room for good. */
  leave() {
    this.#session.leave();
  }

  /**
   * Ends this connection and keeps the membership: a connection with the same user and storage within the grace time
   * takes it over, over another transport or from another page.
   */
  detach() {
    this.#session.detach();
  }

  /**
   * Tries again after PIN_REQUIRED, PIN_WRONG or PIN_THROTTLED.
   * @param {string} pin
   * @returns {Promise<void>} the new `ready`
   */
  retryWithPin(pin) {
    return this.#session.retryWithPin(pin);
  }

  /**
   * With a position of the caller's: from exactly there. Without: where the room is now, and, as it moves, since when
   * that is true. Carried forward, the place of a film that stands still would cost every member a seek.
   * @param {number} [position]
   */
  #place(position) {
    if (position !== undefined) return { currentTime: position };
    const at = this.#session.clock.roomTime();
    const dated = this.#session.clock.synced && this.#session.model.playback.playing;
    return { currentTime: this.positionNow(at), ...(dated && { eventTimestamp: at }) };
  }
}
