/**
 * The room's playback vector as a player follows it: where to be, and at what rate.
 *
 * By the wire, before `at` the film stands at `position`: that is a scheduled start. But a vector that only changes the
 * rate, or corrects a little, of a film that is running must not freeze it until then: there the old motion is kept up
 * to `at`, so that the film arrives at `position` just in time.
 */
import { positionAt } from './model.js';

/** A new vector that is this close (s) to the old one at its start is the same motion, adjusted. */
const SAME_MOTION_S = 0.25;

export class FollowedVector {
  /** @type {import('./model.js').Playback} */
  current;
  /** @type {number|null} the rate until `current.at`, when the film doesn't stop for it */
  #bridgeRate = null;

  /** @param {import('./model.js').Playback} playback */
  constructor(playback) {
    this.current = playback;
  }

  /**
   * @param {import('./model.js').Playback} next
   * @param {number} now room time
   */
  follow(next, now) {
    const last = this.current;
    const running = last.playing && next.playing && last.at <= now && next.at > now;
    const same = running && Math.abs(positionAt(last, next.at) - next.position) < SAME_MOTION_S;
    this.#bridgeRate = same ? last.rate : null;
    this.current = next;
  }

  /** @param {number} at room time */
  positionAt(at) {
    const { position, at: from } = this.current;
    if (this.#bridgeRate !== null && at < from) return position + ((at - from) / 1000) * this.#bridgeRate;
    return positionAt(this.current, at);
  }

  /** @param {number} at room time */
  rateAt(at) {
    return this.#bridgeRate !== null && at < this.current.at ? this.#bridgeRate : this.current.rate;
  }

  /**
   * Whether the film should be moving.
   * @param {number} at room time
   */
  runsAt(at) {
    return this.current.playing && (at >= this.current.at || this.#bridgeRate !== null);
  }

  /**
   * The room time at which a playing film reaches a position.
   * @param {number} position
   */
  reaches(position) {
    return this.current.at + ((position - this.current.position) / this.current.rate) * 1000;
  }
}
