/**
 * The room as the server tells it: messages in, state out. No connection, no clock, no events of its own; what a
 * message means to listeners is returned as data.
 *
 * @typedef {{position: number, rate: number, playing: boolean, at: number, seq: number}} Playback
 * @typedef {{id: number, targetTime: number, awaiting: string[], ready: string[], deadline: number, by: string}} Gate
 *
 * @typedef {object} Member
 * @property {string} userId
 * @property {string} username
 * @property {number} slot
 * @property {boolean} connected
 * @property {number|null} graceUntil      room time until which a lost connection keeps the membership; the latest
 *   possible one for a member that was lost before ROOM_STATE came
 * @property {number} protocol
 * @property {string} transport
 * @property {number} joinedAt
 * @property {boolean} isHost
 * @property {number|null} rttMs
 * @property {number|null} driftMs
 * @property {number|null} clockErrorMs
 * @property {boolean} buffering
 * @property {boolean} inCall              whether the member is in the room's call, as it says itself
 * @property {number|null} position        of the member's last tick, s
 * @property {number|null} lastTickAt      room time at which that position was true
 * @property {'none'|'loading'|'ready'|'failed'} player  whether the member can play the room's film, as it says itself
 * @property {string|null} playerReason    why it can't
 *
 * @typedef {object} RoomDigest  how a large room does; of its members' reports only those of stand-outs are known
 * @property {number} watching   members who are connected, and the audience
 * @property {number} members
 * @property {number} audience
 * @property {number} measured   of whom it is known how they do
 * @property {number} inStep     of these
 * @property {number} buffering  of these
 * @property {number|null} p50Ms  half of them are within this distance of the room's film, ms
 * @property {number|null} p95Ms
 * @property {string[]} standOuts  userIds, the worst first: who buffers, is out of step, or is in the call
 * @typedef {{userId: string, username: string}} Hand  a viewer who asks the host for a place
 *
 * @typedef {object} Outcome
 * @property {boolean} changed
 * @property {boolean} gap                 events are missing: ask for ROOM_STATE
 * @property {[type: string, detail: any][]} events
 */
import { isNewer } from './wire.js';

/** @type {Outcome} */
const NOTHING = Object.freeze({ changed: false, gap: false, events: [] });

/**
 * Where the film stands at a moment of room time, in seconds.
 * @param {Playback} playback
 * @param {number} at room time
 */
export function positionAt({ position, rate, playing, at: from }, at) {
  return playing && at > from ? position + ((at - from) / 1000) * rate : position;
}

export class RoomModel {
  /** @type {Map<string, Member>} */
  #members = new Map();
  /** @type {Map<number, number>} slot → counter of its last tick */
  #tickSeqs = new Map();
  /** @type {Map<number, number>} slot → counter of its last status */
  #statusSeqs = new Map();
  /** The last CHAT that listeners have seen; replayed ones up to here are repeats. */
  #chatSeq = 0;

  epoch = 0;
  seq = 0;
  userId = '';
  hostUserId = /** @type {string|null} */ (null);
  guestControl = false;
  url = /** @type {string|null} */ (null);
  /** @type {Playback} */
  playback = { position: 0, rate: 1, playing: false, at: 0, seq: 0 };
  gate = /** @type {Gate|null} */ (null);
  /** Number of the room's film: one more each time somebody chooses one, even the same again. */
  film = 0;
  /** Whether `film` is the server's count, which commands may name. */
  countsFilms = false;
  /** How long the film is, as the members' players agree on, s. */
  duration = /** @type {number|null} */ (null);
  owner = /** @type {string|null} */ (null);
  hasPin = false;
  banned = /** @type {string[]} */ ([]);
  degraded = false;
  /** Of a large room; null in a small one, where every member's own report is known. */
  digest = /** @type {RoomDigest|null} */ (null);
  nodeId = '';
  /** Whether this client is a member, or watches only. @type {'member'|'audience'} */
  role = 'member';
  /** How many watch without being members. */
  audience = 0;
  /** Whether this viewer's own hand is raised. */
  handRaised = false;
  /** The session that the server knows this client by. */
  #sessionId = '';
  /** Raised hands, shown to the host. @type {Map<string, Hand>} */
  #hands = new Map();

  /** @param {{epoch: number, lastSeq: number}} known what an earlier page has seen of this room */
  constructor({ epoch, lastSeq } = { epoch: 0, lastSeq: 0 }) {
    this.epoch = epoch;
    this.seq = lastSeq;
    this.#chatSeq = lastSeq;
  }

  /** Sorted by the time they joined: the first connected one is the next host. */
  get members() {
    return [...this.#members.values()].sort((a, b) => a.joinedAt - b.joinedAt || a.slot - b.slot);
  }

  /** @param {string} userId */
  member(userId) {
    return this.#members.get(userId);
  }

  get hands() {
    return [...this.#hands.values()];
  }

  get canControl() {
    if (this.role === 'audience') return false;
    return this.guestControl || (this.hostUserId !== null && this.hostUserId === this.userId);
  }

  /**
   * @param {any} message a server message
   * @returns {Outcome}
   */
  apply(message) {
    if (message.type === 'ROOM_STATE') return this.#replace(message);
    if (!Number.isInteger(message.seq)) return this.#applyUnordered(message);
    if (message.epoch !== this.epoch) return { ...NOTHING, gap: true };
    if (message.seq <= this.seq) {
      // Already in the ROOM_STATE we took; chat isn't, it is replayed after a resume.
      return message.type === 'CHAT' && message.seq > this.#chatSeq ? this.#applyEvent(message) : NOTHING;
    }
    if (firstSeq(message) > this.seq + 1) return { ...NOTHING, gap: true };
    this.seq = message.seq;
    return this.#applyEvent(message);
  }

  /**
   * @param {import('./wire.js').Tick} tick
   * @returns {Outcome}
   */
  applyTick(tick) {
    const member = this.#senderOf(tick, this.#tickSeqs);
    if (!member) return NOTHING;
    member.position = tick.position;
    member.lastTickAt = tick.at;
    const { slot, position, at, playing, rate, fromHost } = tick;
    return { changed: true, gap: false, events: [['tick', { slot, position, at, playing, rate, fromHost }]] };
  }

  /**
   * @param {import('./wire.js').Status} status of another member
   * @returns {Outcome}
   */
  applyStatus(status) {
    const member = this.#senderOf(status, this.#statusSeqs);
    if (!member) return NOTHING;
    const { rttMs, driftMs, clockErrorMs, buffering, inCall, transport } = status;
    Object.assign(member, { rttMs, driftMs, clockErrorMs, buffering, inCall, transport });
    return { changed: true, gap: false, events: [] };
  }

  /**
   * @param {import('./wire.js').Digest} digest
   * @returns {Outcome}
   */
  applyDigest({ members, audience, measured, inStep, buffering, p50Ms, p95Ms, standOuts }) {
    const bySlot = new Map(standOuts.map((member) => [member.slot, member]));
    const named = new Map();
    for (const member of this.#members.values()) {
      const known = bySlot.get(member.slot);
      if (known) named.set(member.slot, member.userId);
      if (member.userId === this.userId) continue;
      Object.assign(member, {
        rttMs: null,
        clockErrorMs: null,
        driftMs: known?.driftMs ?? null,
        buffering: known?.buffering ?? false,
        inCall: known?.inCall ?? false,
        ...(!member.isHost && { position: null, lastTickAt: null }),
      });
    }
    this.audience = audience;
    this.digest = {
      watching: members + audience, members, audience, measured, inStep, buffering, p50Ms, p95Ms,
      standOuts: standOuts.map(({ slot }) => named.get(slot)).filter((userId) => userId !== undefined),
    };
    return { changed: true, gap: false, events: [['digest', this.digest]] };
  }

  /** The room has become small, or the connection is lost: nobody knows any more. @returns {Outcome} */
  dropDigest() {
    this.digest = null;
    return { changed: true, gap: false, events: [] };
  }

  /**
   * The sender of a tick or status; none for one that is older than the last.
   * @param {{slot: number, seq: number}} report
   * @param {Map<number, number>} seqs
   */
  #senderOf({ slot, seq }, seqs) {
    const last = seqs.get(slot);
    if (last !== undefined && !isNewer(seq, last)) return undefined;
    const member = [...this.#members.values()].find((m) => m.slot === slot);
    if (member) seqs.set(slot, seq);
    return member;
  }

  /** A new page of that member counts from anew. @param {number} slot */
  #forgetCounters(slot) {
    this.#tickSeqs.delete(slot);
    this.#statusSeqs.delete(slot);
  }

  /**
   * Stores this client's own report, which the server tells only to the others.
   * @typedef {'rttMs'|'driftMs'|'clockErrorMs'|'buffering'|'inCall'|'position'|'lastTickAt'} Reported
   * @param {Partial<Pick<Member, Reported>>} status
   */
  reportSelf(status) {
    const self = this.#members.get(this.userId);
    if (self) Object.assign(self, status);
  }

  /** @param {any} state a ROOM_STATE: the whole truth */
  #replace(state) {
    const before = this.playback;
    const known = this.#members;
    if (state.epoch !== this.epoch) {
      this.#chatSeq = 0;
      this.#tickSeqs.clear();
      this.#statusSeqs.clear();
    }
    this.epoch = state.epoch;
    this.seq = state.seq;
    this.userId = state.userId ?? this.userId;
    this.nodeId = state.nodeId ?? '';
    this.role = state.role === 'audience' ? 'audience' : 'member';
    this.audience = state.audience ?? 0;
    if (typeof state.sessionId === 'string' && state.sessionId !== this.#sessionId) {
      // The server shows a new session the hands that are up, and knows of none of its own.
      this.#sessionId = state.sessionId;
      this.handRaised = false;
      this.#hands.clear();
    }
    if (this.role === 'member') this.handRaised = false;
    this.#beginFilm(state, state.url ?? null);
    this.duration = state.duration ?? null;
    this.guestControl = state.guestControlEnabled === true;
    this.playback = state.playback ?? this.playback;
    this.gate = state.gate ?? null;
    this.owner = state.owner ?? null;
    this.hasPin = state.hasPin === true;
    this.banned = state.banned ?? [];
    this.#members = new Map();
    for (const user of state.users ?? []) {
      // Members' own reports are not in ROOM_STATE: keep those of the same membership.
      const old = known.get(user.userId);
      const kept = old && old.slot === user.slot ? old : undefined;
      this.#members.set(user.userId, newMember({ ...kept, graceUntil: latestGrace(user, kept, state), ...user }));
    }
    this.#setHost(state.hostUserId ?? null);
    const moved = !samePlayback(before, this.playback);
    return {
      changed: true,
      gap: false,
      events: /** @type {[string, any][]} */ (
        moved ? [['playback', { playback: this.playback, cause: 'ROOM_STATE', message: state }]] : []
      ),
    };
  }

  /**
   * @param {any} message an event that is next in order (or a replayed CHAT)
   * @returns {Outcome}
   */
  #applyEvent(message) {
    /** @type {[string, any][]} */
    const events = [];
    switch (message.type) {
      case 'USER_JOINED':
        this.#addMember({ connected: true, joinedAt: message.timestamp, ...message });
        break;
      case 'USER_LEFT':
        this.#removeMember(message.userId);
        break;
      case 'ROSTER':
        // In this order: a member that left and came back is in both lists.
        for (const { userId } of message.left) this.#removeMember(userId);
        for (const user of message.joined) this.#addMember(user);
        break;
      case 'MEMBER_CONNECTION': {
        const member = this.#members.get(message.userId);
        if (!member) break;
        member.connected = message.connected === true;
        member.graceUntil = message.graceUntil ?? null;
        member.transport = message.transport ?? member.transport;
        member.protocol = message.protocol ?? member.protocol;
        if (!member.connected) this.#stopAwaiting(message.userId);
        this.#forgetCounters(member.slot);
        break;
      }
      case 'SESSION_CHANGED': {
        // The same page goes on counting its ticks.
        const member = this.#members.get(message.userId);
        if (member) member.transport = message.transport ?? member.transport;
        break;
      }
      case 'HOST_CHANGED':
        this.#setHost(message.hostUserId ?? null);
        break;
      case 'GUEST_CONTROL':
        this.guestControl = message.enabled === true;
        break;
      case 'USERNAME_UPDATED': {
        const member = this.#members.get(message.userId);
        if (member) member.username = message.username;
        break;
      }
      case 'PIN_CHANGED':
        this.hasPin = message.hasPin === true;
        break;
      case 'BANS_CHANGED':
        this.banned = message.banned ?? [];
        break;
      case 'AUDIENCE':
        this.audience = message.count;
        break;
      case 'READY_GATE':
        this.gate = message.gate ?? null;
        break;
      case 'URL_CHANGE':
        this.#beginFilm(message, message.url ?? this.url, true);
        break;
      case 'SYNC_PLAYBACK':
        this.#beginFilm(message, message.url ?? this.url);
        break;
      case 'PLAYER_STATE': {
        this.duration = message.duration ?? null;
        const member = this.#members.get(message.userId);
        if (!member) break;
        member.player = message.state;
        member.playerReason = message.reason ?? null;
        break;
      }
      case 'CHAT':
        this.#chatSeq = message.seq;
        events.push(['chat', pick(message, ['userId', 'username', 'text', 'timestamp', 'seq', 'replayed'])]);
        break;
      case 'CUSTOM':
        events.push(['custom', pick(message, ['userId', 'namespace', 'payload', 'timestamp', 'seq'])]);
        break;
    }
    // An event of any type that carries a vector moves the room there, and opens or closes the gate.
    if (message.playback) {
      this.playback = message.playback;
      this.gate = message.gate ?? null;
      events.push(['playback', { playback: this.playback, cause: message.type, message }]);
      if (message.reason === 'ended') events.push(['ended', { duration: this.duration }]);
    }
    return { changed: true, gap: false, events };
  }

  /**
   * @param {any} message one outside the room's order
   * @returns {Outcome}
   */
  #applyUnordered(message) {
    switch (message.type) {
      case 'AUDIENCE':
        this.audience = message.count;
        return { changed: true, gap: false, events: [] };
      case 'HAND':
        return this.#applyHand(message);
      case 'DEGRADED':
        this.degraded = message.degraded === true;
        return { changed: true, gap: false, events: [] };
      case 'CUSTOM':
        return {
          ...NOTHING,
          events: [['custom', pick(message, ['userId', 'namespace', 'payload', 'to', 'timestamp'])]],
        };
      case 'OFFER':
      case 'ANSWER':
      case 'ICE_CANDIDATE':
        return { ...NOTHING, events: [['signal', message]] };
      default:
        return NOTHING;
    }
  }

  /**
   * Another film may begin: reports of members' players are about the one before.
   * @param {any} message names the film by its number, unless the server doesn't count films
   * @param {string|null} url
   * @param {boolean} [chosen] whether somebody chose it: then it begins even when the address is the same
   */
  #beginFilm(message, url, chosen = false) {
    const counted = Number.isInteger(message.film);
    const film = counted ? message.film : this.film + (chosen || url !== this.url ? 1 : 0);
    this.countsFilms = counted;
    this.url = url;
    if (film === this.film) return;
    this.film = film;
    this.duration = null;
    for (const member of this.#members.values()) {
      if (member.player !== 'none') Object.assign(member, { player: 'loading', playerReason: null });
    }
  }

  /** @param {any} user */
  #addMember(user) {
    this.#members.set(user.userId, newMember({ ...user, isHost: user.userId === this.hostUserId }));
    this.#forgetCounters(user.slot);
  }

  /** @param {string} userId */
  #removeMember(userId) {
    this.#members.delete(userId);
    this.#stopAwaiting(userId);
  }

  /** @param {string} userId */
  #stopAwaiting(userId) {
    if (!this.gate) return;
    this.gate = { ...this.gate, awaiting: this.gate.awaiting.filter((awaited) => awaited !== userId) };
  }

  /** @param {any} message */
  #applyHand({ userId, username, raised }) {
    if (this.role === 'audience') this.handRaised = raised === true;
    else if (raised) this.#hands.set(userId, { userId, username });
    else this.#hands.delete(userId);
    return { changed: true, gap: false, events: /** @type {[string, any][]} */ ([['hand', { userId, username, raised }]]) };
  }

  /** @param {string|null} hostUserId */
  #setHost(hostUserId) {
    if (hostUserId !== this.userId) this.#hands.clear();
    this.hostUserId = hostUserId;
    for (const member of this.#members.values()) member.isHost = member.userId === hostUserId;
  }
}

/**
 * The place of the first event that a message tells of: a ROSTER tells of several.
 * @param {any} message
 * @returns {number}
 */
function firstSeq({ type, seq, events }) {
  return (type === 'ROSTER' || type === 'PASSED') && Number.isInteger(events) ? seq - events + 1 : seq;
}

/**
 * @param {any} user  of ROOM_STATE
 * @param {Member|undefined} kept  what was known of the same membership
 * @param {any} state
 * @returns {number|null}
 */
function latestGrace(user, kept, { roomTime, graceMs }) {
  if (user.connected !== false) return null;
  if (kept?.graceUntil && !(kept.graceUntil < roomTime)) return kept.graceUntil;
  return Number.isFinite(roomTime) && Number.isFinite(graceMs) ? roomTime + graceMs : null;
}

/**
 * @param {any} user
 * @returns {Member}
 */
function newMember(user) {
  return {
    userId: user.userId,
    username: user.username ?? user.userId,
    slot: user.slot,
    connected: user.connected !== false,
    graceUntil: user.graceUntil ?? null,
    protocol: user.protocol ?? 2,
    transport: user.transport ?? '',
    joinedAt: user.joinedAt ?? 0,
    isHost: user.isHost === true,
    rttMs: user.rttMs ?? null,
    driftMs: user.driftMs ?? null,
    clockErrorMs: user.clockErrorMs ?? null,
    buffering: user.buffering === true,
    inCall: user.inCall === true,
    position: user.position ?? null,
    lastTickAt: user.lastTickAt ?? null,
    player: user.player ?? 'none',
    playerReason: user.playerReason ?? null,
  };
}

/**
 * @param {Playback} a
 * @param {Playback} b
 */
function samePlayback(a, b) {
  return a.position === b.position && a.rate === b.rate && a.playing === b.playing && a.at === b.at && a.seq === b.seq;
}

/**
 * @param {any} message
 * @param {string[]} names
 */
function pick(message, names) {
  return Object.fromEntries(names.filter((name) => name in message).map((name) => [name, message[name]]));
}
