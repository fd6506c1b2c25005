/**
 * How far a player is from the room, and what rate brings it back. Pure: samples and times in, numbers out.
 * Drift is in ms of film, positive when the player is ahead.
 */

const MOST_SAMPLES = 9;
const OLDEST_MS = 1500;
const FEWEST_SAMPLES = 3;

/**
 * A median over recent samples. Single readings of a media element are off by tens of ms now and then (a busy main
 * thread, a frame shown late). Each sample is carried to the present with the rates that were applied since, so that
 * the median has no lag while a correction is running.
 */
export class DriftFilter {
  /** @type {{at: number, drift: number}[]} drift with the slip up to its moment taken out */
  #samples = [];
  #slip = 0;
  #slipped = 0;
  #since = 0;

  /**
   * @param {number} now
   * @param {number} slip from now on: ms of drift gained a ms, i.e. the player's rate minus the room's
   */
  setSlip(now, slip) {
    this.#slipped = this.#slippedAt(now);
    this.#since = now;
    this.#slip = slip;
  }

  /**
   * @param {number} at
   * @param {number} drift
   */
  add(at, drift) {
    this.#samples.push({ at, drift: drift - this.#slippedAt(at) });
    if (this.#samples.length > MOST_SAMPLES) this.#samples.shift();
  }

  /**
   * @param {number} now
   * @returns {{drift: number, noise: number}|null} null until there are enough samples to trust; `noise` is how far a
   *   sample is from the median, on average
   */
  read(now) {
    this.#samples = this.#samples.filter(({ at }) => now - at < OLDEST_MS);
    if (this.#samples.length < FEWEST_SAMPLES) return null;
    const drifts = this.#samples.map(({ drift }) => drift);
    const middle = median(drifts);
    // The mean, not the median, of how far they are off: readings that alternate between two values are not quiet.
    const noise = drifts.reduce((sum, drift) => sum + Math.abs(drift - middle), 0) / drifts.length;
    return { drift: middle + this.#slippedAt(now), noise };
  }

  /** After anything that moves the player other than its rate. */
  clear() {
    this.#samples = [];
  }

  /** @param {number} at */
  #slippedAt(at) {
    return this.#slipped + (at - this.#since) * this.#slip;
  }
}

/** Drift from which on a player is corrected: the least that its readings can tell from noise. */
const ENTER_LEAST_MS = 6;
const ENTER_MOST_MS = 14;
const ENTER_PER_NOISE = 3;
/** A correction ends below this part of it. */
const LEAVE_PART = 1 / 3;
const MOST_DEVIATION = 0.08;
const LEAST_DEVIATION = 0.01;
const CORRECT_WITHIN_MS = 500;

/** Turns drift into a deviation from the room's rate, with hysteresis: a player in step is left alone. */
export class RateController {
  correcting = false;

  /**
   * @param {number} drift
   * @param {number} noise ms, of the readings
   * @param {number} interval ms until this is called again: a correction must not run past its aim meanwhile
   * @returns {number} what to add to the room's rate, as a fraction of it
   */
  deviation(drift, noise, interval) {
    const size = Math.abs(drift);
    const enter = Math.max(ENTER_LEAST_MS, Math.min(ENTER_MOST_MS, noise * ENTER_PER_NOISE));
    this.correcting = size > (this.correcting ? enter * LEAVE_PART : enter);
    if (!this.correcting) return 0;
    const proportional = size / Math.max(CORRECT_WITHIN_MS, interval * 1.2);
    const least = Math.min(LEAST_DEVIATION, size / interval);
    // Steps of half a percent: each new rate costs the browser's audio pipeline a splice.
    const stepped = Math.max(least, Math.round(proportional * 200) / 200);
    return -Math.sign(drift) * Math.min(MOST_DEVIATION, stepped);
  }

  reset() {
    this.correcting = false;
  }
}

/** A running estimate of a delay, e.g. between a seek and data to show. */
export class Latency {
  #value;
  #most;

  /**
   * @param {number} initial ms
   * @param {number} most
   */
  constructor(initial, most) {
    this.#value = initial;
    this.#most = most;
  }

  get ms() {
    return this.#value;
  }

  /** @param {number} measured */
  learn(measured) {
    // Quick to grow, slow to shrink: too much lead costs a little waiting, too little costs another seek.
    const weight = measured > this.#value ? 0.6 : 0.25;
    this.nudge(weight * (measured - this.#value));
  }

  /** @param {number} by */
  nudge(by) {
    this.#value = Math.max(0, Math.min(this.#most, this.#value + by));
  }
}

/** @param {number[]} values */
export function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}
