/**
 * What the client keeps between page loads. Storage may be missing, full or forbidden: then it keeps things for the life
 * of the page only, and nothing else changes.
 */
const TRANSPORT_MEMORY_MS = 24 * 3600 * 1000;

/**
 * What makes a member the same member again.
 * @typedef {{userId: string, resumeToken: string|null, epoch: number, lastSeq: number}} Membership
 */

export class Store {
  /** @type {Map<string, string>} */
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
   * @param {string} roomId
   * @param {Membership} membership
   */
  keepMembership(roomId, membership) {
    this.#write(`member:${roomId}:${membership.userId}`, membership);
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
    try {
      this.#storage?.setItem(this.#key(name), text);
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
