/**
 * Tells the room, and the page, whether this player can play the room's film (PLAYER). The ready gate waits only for
 * players that are ready and keep up, and the others see who can't play the film or keep up with it, and why.
 *
 * @typedef {{state: 'none'|'loading'|'ready'|'failed', reason?: string, duration?: number}} Status
 *   `reason`: why it failed: `decode`, `network`, `unsupported`, `blocked` (the browser wants a click first), `live` (a
 *   live stream); why one that is ready can't keep up: `stalls`, `slow` (lag.js)
 */

/** Largest position that the wire takes, s. */
const LONGEST_S = 604_800;

export class PlayerStatus {
  #room;
  #emit;
  #told = '';
  /** @type {Status} */
  current = { state: 'none' };
  #forget = (/** @type {any} */ event) => {
    // A membership that is taken over starts without a player.
    if (event.detail !== 'joined') this.#told = '';
  };

  /**
   * @param {import('./room.js').Room} room
   * @param {(status: Status) => void} emit
   */
  constructor(room, emit) {
    this.#room = room;
    this.#emit = emit;
    room.addEventListener('state', this.#forget);
  }

  /** @param {Status} status */
  update(status) {
    if (!same(status, this.current)) {
      this.current = status;
      this.#emit(status);
    }
    const told = `${JSON.stringify(status)} ${this.#room.film}`;
    if (told !== this.#told && this.#room.sendPlayer(status)) this.#told = told;
  }

  stop() {
    this.#room.removeEventListener('state', this.#forget);
    if (this.#told !== '') this.#room.sendPlayer({ state: 'none' });
  }
}

/**
 * @param {HTMLVideoElement} video
 * @param {object} known
 * @param {import('./lag.js').LagReason|null} known.lag
 * @param {string|null} known.failure
 * @param {boolean} known.blocked
 * @param {boolean} known.live
 * @param {boolean} known.lengthSettled  whether `duration` is that of a film
 * @param {boolean} known.expected       a film is to be loaded
 * @returns {Status}
 */
export function statusOf({ readyState, networkState, duration, error }, { lag, failure, blocked, live, lengthSettled, expected }) {
  if (failure !== null) return { state: 'failed', reason: failure };
  if (readyState > 0 && !error) {
    if (live) return { state: 'failed', reason: 'live' };
    if (blocked) return { state: 'failed', reason: 'blocked' };
    const known = lengthSettled && duration > 0 && duration <= LONGEST_S;
    return { state: 'ready', ...(lag !== null && { reason: lag }), ...(known && { duration: Math.round(duration * 1000) / 1000 }) };
  }
  return { state: expected || networkState > 0 ? 'loading' : 'none' };
}

/**
 * @param {Status} a
 * @param {Status} b
 */
function same(a, b) {
  return a.state === b.state && a.reason === b.reason && a.duration === b.duration;
}
