/**
 * Tells a player that can't keep up with the film. It is in the room's way (a ready gate would wait for it), so the
 * room is told why, and again when it keeps up.
 *
 * `stalls`: its data comes too slowly. It stands still for want of data again and again, or for a large part of the
 * time. `slow`: the device is too slow. It falls behind its own rate again and again, so that it has to jump ahead, or
 * shows too few of its frames.
 *
 * @typedef {'stalls'|'slow'} LagReason
 */

/** A shorter stop is a seek's, or none that a viewer notices. */
const STALL_MS = 500;
const STALLS = 3;
const JUMPS = 3;
/** So many stalls or jumps within this time are too many; so is standing still for a third of it. */
const WITHIN_MS = 60_000;
const STANDS_MS = 20_000;
/** Frames are counted in spans of this length. */
const FRAMES_MS = 5000;
const FEWEST_FRAMES = 50;
const DROPPED_PART = 0.35;
const BAD_SPANS = 3;
/** A player without a symptom for so long keeps up again. */
const OVER_AFTER_MS = 20_000;

/**
 * @typedef {object} Sight
 * @property {boolean} running  the room plays, and nothing else keeps the player from it
 * @property {boolean} starving it stands still for want of data, not for a seek that has just begun
 * @property {boolean} shown    browsers drop the frames of hidden pages
 * @property {{totalVideoFrames: number, droppedVideoFrames: number}|undefined} frames
 */

export class Lag {
  /** Times of the latest stalls, and of the latest jumps. @type {number[]} */
  #stalls = [];
  /** @type {number[]} */
  #jumps = [];
  /** @type {number|null} */
  #starvesSince = null;
  #counted = false;
  /** What was counted at the span's begin. @type {{at: number, total: number, dropped: number}|null} */
  #span = null;
  #badSpans = 0;
  #symptomAt = -Infinity;
  /** @type {LagReason|null} */
  current = null;

  /**
   * @param {number} now
   * @param {Sight} sight
   */
  look(now, { running, starving, shown, frames }) {
    this.#watchData(now, running && starving);
    this.#watchFrames(now, running && !starving && shown ? frames : undefined);
    if (this.current !== null && now - this.#symptomAt > OVER_AFTER_MS && this.#starvesSince === null) this.forget();
  }

  /** The player fell behind, and jumps ahead. @param {number} now */
  noteJump(now) {
    this.#jumps = recent(this.#jumps, now);
    if (this.#jumps.length >= JUMPS) this.#show('slow', now);
  }

  /** Another source, or no symptom any more. */
  forget() {
    this.#stalls = [];
    this.#jumps = [];
    this.#starvesSince = this.#span = null;
    this.#counted = false;
    this.#badSpans = 0;
    this.current = null;
  }

  /**
   * @param {number} now
   * @param {boolean} starving
   */
  #watchData(now, starving) {
    if (!starving) {
      this.#starvesSince = null;
      this.#counted = false;
      return;
    }
    this.#starvesSince ??= now;
    const stands = now - this.#starvesSince;
    if (stands >= STALL_MS && !this.#counted) {
      this.#counted = true;
      this.#stalls = recent(this.#stalls, now);
    }
    if (this.#stalls.length >= STALLS || stands >= STANDS_MS) this.#show('stalls', now);
  }

  /**
   * @param {number} now
   * @param {Sight['frames']} frames
   */
  #watchFrames(now, frames) {
    if (!frames) {
      this.#span = null;
      return;
    }
    const { totalVideoFrames: total, droppedVideoFrames: dropped } = frames;
    this.#span ??= { at: now, total, dropped };
    if (now - this.#span.at < FRAMES_MS) return;
    const [all, lost] = [total - this.#span.total, dropped - this.#span.dropped];
    const bad = all >= FEWEST_FRAMES && lost / all > DROPPED_PART;
    this.#badSpans = bad ? this.#badSpans + 1 : 0;
    this.#span = { at: now, total, dropped };
    if (bad && (this.#badSpans >= BAD_SPANS || this.current === 'slow')) this.#show('slow', now);
  }

  /**
   * @param {LagReason} lag
   * @param {number} now
   */
  #show(lag, now) {
    this.#symptomAt = now;
    this.current ??= lag;
  }
}

/**
 * @param {number[]} times
 * @param {number} now one more
 */
function recent(times, now) {
  return [...times.filter((at) => now - at < WITHIN_MS), now];
}
