/**
 * Tells a live stream from a film. Each player of a live stream has a time line of its own, so the room's position
 * means nothing to it: live streams are not kept in step yet, and their players are left at the stream's edge.
 */

/** A film's length is corrected a little once or twice while it loads; a window that slides grows again and again. */
const GROWS_BY_S = 0.5;
const GROWTHS = 2;
const GROWTHS_APART_MS = 500;
/**
 * The length that an engine sets (MSE) may still turn out to be the edge of a window; segments last up to ten seconds.
 */
const SETTLED_MS = 20_000;

export class LiveDetector {
  #video;
  #duration = NaN;
  #growths = 0;
  #grewAt = -Infinity;
  #changedAt = Infinity;
  detected = false;

  /** @param {HTMLVideoElement} video */
  constructor(video) {
    this.#video = video;
  }

  /** @param {number} now */
  look(now) {
    const { duration, readyState } = this.#video;
    if (readyState === 0 || duration === this.#duration) return;
    if (duration === Infinity) this.detected = true;
    if (duration > this.#duration + GROWS_BY_S && now - this.#grewAt > GROWTHS_APART_MS) {
      this.#growths += 1;
      this.#grewAt = now;
      this.detected ||= this.#growths >= GROWTHS;
    }
    this.#duration = duration;
    this.#changedAt = now;
  }

  /**
   * Whether the length is that of a film, by which the room may end. A file has one; what an engine feeds has to keep
   * it for a while.
   * @param {number} now
   */
  lengthSettled(now) {
    const { currentSrc, ended } = this.#video;
    return !this.detected && (!currentSrc.startsWith('blob:') || ended || now - this.#changedAt > SETTLED_MS);
  }

  /** Called for another source. */
  forget() {
    this.#duration = NaN;
    this.#growths = 0;
    this.#grewAt = -Infinity;
    this.#changedAt = Infinity;
    this.detected = false;
  }
}
