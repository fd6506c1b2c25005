/**
 * Whether corrections by rate do anything. Players ignore rates, round them to a list, or have them set back by an
 * extension; then a player stays where it is, and only a jump helps. Compares how drift changed with how it should
 * have.
 */

/** Least expected change for a comparison, ms; readings lag by up to a second of the correction. */
const ENOUGH_MS = 40;
const READINGS_LAG_MS = 900;
const LEAST_EFFECT = 0.4;
/** Rates are tried again after so long, in case their obstacle is gone. */
const AGAIN_AFTER_MS = 60_000;
/** Something else that sets the rate so many times within so long is left to have it. */
const FORCED_TIMES = 3;
const FORCED_WITHIN_MS = 30_000;

export class RateEffect {
  #from = /** @type {number|null} */ (null);
  #expected = 0;
  #deviation = 0;
  #at = 0;
  #uselessUntil = -Infinity;
  /** @type {number[]} */
  #forced = [];
  /** Whether something else holds the element at a rate of its own. */
  forced = false;

  /** @param {number} now */
  useless(now) {
    return now < this.#uselessUntil;
  }

  /**
   * @param {number} now
   * @param {number} drift ms, as read now
   * @param {number} deviation that is applied from now on, in ms of film a ms
   */
  observe(now, drift, deviation) {
    this.#expected += this.#deviation * (now - this.#at);
    this.#at = now;
    if (deviation === 0 || Math.sign(deviation) !== Math.sign(this.#deviation) || this.#from === null) {
      this.#from = drift;
      this.#expected = 0;
    } else if (Math.abs(this.#expected) > ENOUGH_MS + Math.abs(this.#deviation) * 2 * READINGS_LAG_MS) {
      if ((drift - this.#from) / this.#expected < LEAST_EFFECT) this.noteRefused(now);
      this.#from = drift;
      this.#expected = 0;
    }
    this.#deviation = deviation;
  }

  /** Notes that the element doesn't take the rate. @param {number} now */
  noteRefused(now) {
    this.#uselessUntil = now + AGAIN_AFTER_MS;
    this.forced = false;
  }

  /**
   * Something else has set another rate.
   * @param {number} now
   * @returns {boolean} whether it is worth setting ours again
   */
  noteForced(now) {
    this.#forced = [...this.#forced.filter((at) => now - at < FORCED_WITHIN_MS), now];
    if (this.#forced.length < FORCED_TIMES) return true;
    this.noteRefused(now);
    this.forced = true;
    return false;
  }

  /** After anything that moves the player other than its rate. */
  clear() {
    this.#from = null;
    this.#expected = 0;
    this.#deviation = 0;
  }

  /** Called for another source. */
  forget() {
    this.clear();
    this.#uselessUntil = -Infinity;
  }
}
