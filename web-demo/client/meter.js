/**
 * Measures how far a playing element is from where the room is, in two ways, and believes the steadier one.
 *
 * `currentTime` is an interpolated clock in Chromium (readings within 0.5 ms of each other, measured), and one of 40 ms
 * steps elsewhere. A frame's metadata say which moment of the film is shown when; a frame lands on a screen refresh, so
 * they spread by some 8 ms everywhere.
 */
import { DriftFilter } from './drift.js';

/** Frames stop in background tabs, for sound without pictures, and on slide shows. */
const FRAMES_STALE_MS = 300;

/** Below this, `currentTime` is as good as it gets. */
const STEADY_MS = 4;

export class DriftMeter {
  #video;
  #env;
  #targetAt;
  #clock = new DriftFilter();
  #frames = new DriftFilter();
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

  /** Source of the last reading. @type {'currentTime'|'frames'} */
  source = 'currentTime';

  /** @returns {{drift: number, noise: number}|null} ms the player is ahead; null while there is too little to go by */
  read() {
    const now = this.#env.now();
    if (now < this.#ignoreBefore) return null;
    this.#sample(this.#clock, now, this.#video.currentTime);
    const clock = this.#clock.read(now);
    const framesCome = now - this.#frameAt < FRAMES_STALE_MS;
    const frames = framesCome ? this.#frames.read(now) : null;
    // A clock of steps is behind by half a step on average. After a start that would be learned as slowness of the
    // player, so the first word is left to the frames, which are about to be enough.
    if (clock !== null && clock.noise > STEADY_MS && framesCome && frames === null) return null;
    const byFrames = clock !== null && frames !== null && clock.noise > STEADY_MS && frames.noise < clock.noise;
    this.source = byFrames ? 'frames' : 'currentTime';
    return byFrames ? frames : clock;
  }

  /**
   * After anything that moves the player other than its rate.
   * @param {number} [settleMs] readings before then are worth nothing: the pipeline is still filling
   */
  clear(settleMs = 0) {
    this.#clock.clear();
    this.#frames.clear();
    this.#ignoreBefore = this.#env.now() + settleMs;
  }

  /** @param {number} slip the player's rate minus the room's */
  setSlip(slip) {
    this.#clock.setSlip(this.#env.now(), slip);
    this.#frames.setSlip(this.#env.now(), slip);
  }

  stop() {
    this.#stopped = true;
    this.#video.cancelVideoFrameCallback?.(this.#frameRequest);
  }

  /**
   * @param {DriftFilter} filter
   * @param {number} local when the film stood at `position`
   * @param {number} position
   */
  #sample(filter, local, position) {
    filter.add(local, (position - this.#targetAt(local)) * 1000);
  }

  #requestFrame() {
    if (this.#stopped || !this.#video.requestVideoFrameCallback) return;
    this.#frameRequest = this.#video.requestVideoFrameCallback((_now, { mediaTime, expectedDisplayTime }) => {
      this.#frameAt = this.#env.now();
      const { paused, seeking } = this.#video;
      if (!paused && !seeking && this.#frameAt >= this.#ignoreBefore) {
        this.#sample(this.#frames, expectedDisplayTime, mediaTime);
      }
      this.#requestFrame();
    });
  }
}
