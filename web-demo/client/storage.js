/**
 * State that the client keeps between page loads. Storage may be missing, full or forbidden: then it keeps things for
 * the life of the page only, and nothing else changes.
 */
const TRANSPORT_MEMORY_MS = 24 * 3600 * 1000;
/** Ids that are kept; beyond it the oldest ones of closed tabs are forgotten. */
const MOST_USER_IDS = 20;

/**
 * Proof and place of a membership, to resume it.
 * @typedef {{userId: string, resumeToken: string|null, epoch: number, lastSeq: number}} Membership
 */

export class Store {
  /** Values that the storage didn't take. @type {Map<string, string>} */
  #page = new Map();
  #storage;
  #server;

  /**
   * @param {Storage|null} storage
   * @param {string} server one browser may use several servers; nothing of one is of use to another
   */
  constructor(storage, server) {
    this.#storage = storage;
    this.#server = server;
  }

  /** @param {() => string} make */
  userId(make) {
    const kept = this.#read('user');
    if (typeof kept === 'string') return kept;
    return this.renewUserId(make);
  }

  /** @param {() => string} make */
  renewUserId(make) {
    const userId = make();
    this.#write('user', userId);
    return userId;
  }

  /** The ids of this browser's tabs, the oldest first (seat.js). @returns {string[]} */
  userIds() {
    const [first, more] = [this.#read('user'), this.#read('users')];
    const ids = [first, ...(Array.isArray(more) ? more : [])];
    return [...new Set(ids.filter((id) => typeof id === 'string'))];
  }

  /** @param {string} userId */
  addUserId(userId) {
    const ids = this.userIds();
    if (ids.length === 0) this.#write('user', userId);
    else this.#write('users', [...ids.slice(1), userId].slice(-MOST_USER_IDS));
  }

  /** @param {string} userId one that turned out to be somebody else's */
  dropUserId(userId) {
    const [first, ...more] = this.userIds().filter((id) => id !== userId);
    if (first === undefined) this.#remove('user');
    else this.#write('user', first);
    this.#write('users', more);
  }

  /**
   * Says that a returning client is the same one: a ban holds for it too. One for each server, so that no two servers
   * can compare them.
   * @param {() => string} make
   * @returns {string}
   */
  clientKey(make) {
    return this.#keep('client', make);
  }

  /**
   * Proves that this browser made the room, or was invited to be its owner: kept for as long as the storage is, because
   * a link made today is opened next week.
   * @param {string} roomId
   * @returns {string|null}
   */
  hostKey(roomId) {
    const kept = this.#read(`host:${roomId}`);
    return typeof kept === 'string' ? kept : null;
  }

  /**
   * @param {string} roomId
   * @param {() => string} make
   * @returns {string}
   */
  makeHostKey(roomId, make) {
    return this.#keep(`host:${roomId}`, make);
  }

  /** @param {any[]} nodes other nodes of the cluster, as the server last told */
  keepNodes(nodes) {
    if (nodes.length > 0) this.#write('nodes', nodes);
    else this.#remove('nodes');
  }

  /** @returns {any[]} */
  nodes() {
    const kept = this.#read('nodes');
    return Array.isArray(kept) ? kept : [];
  }

  /**
   * @param {string} roomId
   * @param {string} userId
   * @returns {Membership}
   */
  membership(roomId, userId) {
    const kept = this.#read(`member:${roomId}:${userId}`);
    const whole = typeof kept?.resumeToken === 'string' && Number.isFinite(kept.epoch) && Number.isFinite(kept.lastSeq);
    return whole ? { ...kept, userId } : { userId, resumeToken: null, epoch: 0, lastSeq: 0 };
  }

  /**
   * A new token.
   * @param {string} roomId
   * @param {Membership} membership
   */
  keepMembership(roomId, membership) {
    this.#write(`member:${roomId}:${membership.userId}`, membership);
  }

  /**
   * How far this page has seen. Another page that took the membership over has written its newer token meanwhile: the
   * loser must not put the old one back, or its reload would be another member.
   * @param {string} roomId
   * @param {Membership} membership
   */
  keepPlace(roomId, membership) {
    if (this.#isOurs(roomId, membership)) this.keepMembership(roomId, membership);
  }

  /**
   * The membership is over, unless another page has it.
   * @param {string} roomId
   * @param {Membership} membership
   */
  forgetOwnMembership(roomId, membership) {
    if (this.#isOurs(roomId, membership)) this.forgetMembership(roomId, membership.userId);
  }

  /**
   * @param {string} roomId
   * @param {Membership} membership
   */
  #isOurs(roomId, { userId, resumeToken }) {
    return this.membership(roomId, userId).resumeToken === resumeToken;
  }

  /**
   * @param {string} roomId
   * @param {string} userId
   */
  forgetMembership(roomId, userId) {
    this.#remove(`member:${roomId}:${userId}`);
  }

  /**
   * The transport that won the last race with this server.
   * @param {number} now wall clock
   * @returns {'webtransport'|'websocket'|null}
   */
  winner(now) {
    const kept = this.#read('transport');
    const fresh = kept && now - kept.at >= 0 && now - kept.at < TRANSPORT_MEMORY_MS;
    return fresh && (kept.kind === 'webtransport' || kept.kind === 'websocket') ? kept.kind : null;
  }

  /**
   * @param {'webtransport'|'websocket'} kind
   * @param {number} now wall clock
   */
  keepWinner(kind, now) {
    // A repeated winner keeps its first date: WebTransport gets another chance a day after it first failed.
    if (this.winner(now) !== kind) this.#write('transport', { kind, at: now });
  }

  /**
   * @param {string} name
   * @param {() => string} make
   * @returns {string}
   */
  #keep(name, make) {
    const kept = this.#read(name);
    if (typeof kept === 'string') return kept;
    const made = make();
    this.#write(name, made);
    return made;
  }

  /** @param {string} name */
  #key(name) {
    return `tandem:${this.#server}:${name}`;
  }

  /**
   * @param {string} name
   * @returns {any}
   */
  #read(name) {
    const key = this.#key(name);
    try {
      return JSON.parse(this.#page.get(key) ?? this.#storage?.getItem(key) ?? 'null');
    } catch {
      return null;
    }
  }

  /**
   * @param {string} name
   * @param {unknown} value
   */
  #write(name, value) {
    const text = JSON.stringify(value);
    this.#page.set(this.#key(name), text);
    if (!this.#storage) return;
    try {
      this.#storage.setItem(this.#key(name), text);
      // Other pages write there too: what is read is always theirs as well.
      this.#page.delete(this.#key(name));
    } catch {
      // Full or forbidden: the copy of this page is enough to go on.
    }
  }

  /** @param {string} name */
  #remove(name) {
    this.#page.delete(this.#key(name));
    try {
      this.#storage?.removeItem(this.#key(name));
    } catch {
      // As above.
    }
  }
}
