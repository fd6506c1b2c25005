/** Measures how far a playing element is from where the room is. */
import { DriftFilter } from './drift.js';

const FRAMES_STALE_MS = 300;

export class DriftMeter {
  #video;
  #env;
  #targetAt;
  #filter = new DriftFilter();
  #ignoreBefore = -Infinity;
  #frameAt = -Infinity;
  #frameRequest = 0;
  #stopped = false;

  /**
   * @param {HTMLVideoElement} video
   * @param {import('./env.js').Env} env
   * @param {(local: number) => number} targetAt the position (s) that the room has at a moment of `env.now()`
   */
  constructor(video, env, targetAt) {
    this.#video = video;
    this.#env = env;
    this.#targetAt = targetAt;
    this.#requestFrame();
  }

  /** Frames stop in background tabs, for sound without pictures, and on slide shows. */
  get seesFrames() {
    return this.#env.now() - this.#frameAt < FRAMES_STALE_MS;
  }

  /** @returns {number|null} ms the player is ahead; null while there is too little to go by */
  read() {
    const now = this.#env.now();
    if (now < this.#ignoreBefore) return null;
    if (!this.seesFrames) this.#sample(now, this.#video.currentTime);
    return this.#filter.read(now);
  }

  /**
   * After anything that moves the player other than its rate.
   * @param {number} [settleMs] readings before then are worth nothing: the pipeline is still filling
   */
  clear(settleMs = 0) {
    this.#filter.clear();
    this.#ignoreBefore = this.#env.now() + settleMs;
  }

  /** @param {number} slip the player's rate minus the room's */
  setSlip(slip) {
    this.#filter.setSlip(this.#env.now(), slip);
  }

  stop() {
    this.#stopped = true;
    this.#video.cancelVideoFrameCallback?.(this.#frameRequest);
  }

  /**
   * @param {number} local when the film stood at `position`
   * @param {number} position
   */
  #sample(local, position) {
    this.#filter.add(local, (position - this.#targetAt(local)) * 1000);
  }

  /**
   * A frame on its way to the screen says which moment of the film is shown at which moment, exactly; `currentTime` is an
   * estimate, and in some browsers one of 40 ms steps.
   */
  #requestFrame() {
    if (this.#stopped || !this.#video.requestVideoFrameCallback) return;
    this.#frameRequest = this.#video.requestVideoFrameCallback((_now, { mediaTime, expectedDisplayTime }) => {
      this.#frameAt = this.#env.now();
      const { paused, seeking } = this.#video;
      if (!paused && !seeking && this.#frameAt >= this.#ignoreBefore) this.#sample(expectedDisplayTime, mediaTime);
      this.#requestFrame();
    });
  }
}
