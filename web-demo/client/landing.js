/**
 * Where this source's seeks land. A film server without byte ranges turns every seek into a seek to 0, some players go
 * to key frames only, engines move off a hole: to seek again and again would never end. One miss may be chance and is
 * tried again; after that the source counts as inexact, and what it lands on is taken.
 */

/** A seek that lands this close is exact: frames and rounding, s. */
export const EXACT_S = 0.15;
/** A seek that may miss is not made for less than this, s. */
const WORTH_IT_S = 2;
const MISSES_TO_LEARN = 2;
const HITS_TO_UNLEARN = 3;

export class Landing {
  #misses = 0;
  #hits = 0;
  /** The largest miss of this source, s. */
  worst = 0;
  /** Learned: seeks of this source land elsewhere. */
  inexact = false;
  /** Seeks to what is buffered land, as far as known: without byte ranges, these are the only ones that do. */
  #landsInBuffer = true;

  /**
   * @param {number} error s, positive: beyond the target
   * @param {boolean} [buffered] whether the target was buffered
   */
  learn(error, buffered = false) {
    if (buffered && Math.abs(error) > EXACT_S) this.#landsInBuffer = false;
    if (Math.abs(error) <= EXACT_S) {
      this.#misses = 0;
      this.#hits += 1;
      if (this.#hits >= HITS_TO_UNLEARN) {
        this.inexact = false;
        this.worst = 0;
      }
      return;
    }
    this.#hits = 0;
    this.#misses += 1;
    this.worst = Math.max(this.worst, Math.abs(error));
    if (this.#misses >= MISSES_TO_LEARN) this.inexact = true;
  }

  /** How often a seek to one place is tried. */
  get tries() {
    return this.inexact ? 1 : MISSES_TO_LEARN;
  }

  /**
   * Whether a seek can be expected to bring a player nearer.
   * @param {number} gap s between where it is and where it should be
   * @param {boolean} buffered whether the target is buffered
   */
  helps(gap, buffered) {
    const size = Math.abs(gap);
    return !this.inexact || size > this.worst * 2 || (buffered && this.#landsInBuffer && size > WORTH_IT_S);
  }

  /** Called for another source. */
  forget() {
    this.#misses = this.#hits = 0;
    this.worst = 0;
    this.inexact = false;
    this.#landsInBuffer = true;
  }
}
