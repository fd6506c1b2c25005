/**
 * The media element under orders. It remembers what was asked of the element, so that a viewer's use of its own
 * controls can be told apart, and learns how long the element takes.
 */
import { Latency } from './drift.js';

/** Some browsers buffer only to the current frame until they play. */
const DATA_WITHIN_MS = 3000;

/** A seek lands where it was sent, within a rounding. */
const SAME_POSITION_S = 0.2;

const SEEKABLE_WITHIN_S = 0.5;

/** A position can be shown when this much is buffered beyond it. */
const BUFFERED_AHEAD_S = 1;

const HAVE_METADATA = 1;
const HAVE_CURRENT_DATA = 2;
const HAVE_FUTURE_DATA = 3;

export class Player {
  #video;
  #env;
  #emit;
  /** Begin of our seek that has not brought data to show yet. @type {number|null} */
  #seekBegan = null;

  wantsPlaying = false;
  rate;
  /** Target of our seek that has not landed yet. @type {number|null} */
  seekTarget = null;
  /** The element's own aim after our seek: some players round the target. */
  #seekHeading = 0;
  #seekBuffered = false;
  /** The last rate that the element didn't take; not asked for again. @type {number|null} */
  #refusedRate = null;
  /** The browser plays nothing without a click. */
  blocked = false;
  seekLatency = new Latency(250, 3000);
  /** From play() to moving film: after a pause what was decoded is still there, after a seek the pipeline is empty. */
  resumeLatency = new Latency(15, 400);
  freshLatency = new Latency(60, 400);
  #fresh = true;

  /**
   * @param {HTMLVideoElement} video
   * @param {import('./env.js').Env} env
   * @param {(type: string, detail: any) => void} emit
   */
  constructor(video, env, emit) {
    this.#video = video;
    this.#env = env;
    this.#emit = emit;
    this.rate = video.playbackRate;
  }

  get usable() {
    return this.#video.readyState >= HAVE_METADATA && !this.#video.error;
  }

  /** Waiting for data, or for a seek. */
  get stuck() {
    return this.#video.seeking || this.#video.readyState < HAVE_FUTURE_DATA;
  }

  /** Enough to show, and to go on with. */
  get hasData() {
    const { readyState, seeking, ended } = this.#video;
    if (seeking) return false;
    if (readyState >= HAVE_FUTURE_DATA || ended) return true;
    const waited = this.#seekBegan === null ? 0 : this.#env.now() - this.#seekBegan;
    return readyState >= HAVE_CURRENT_DATA && waited > DATA_WITHIN_MS;
  }

  /** Latency of the next start. */
  get startLatency() {
    return this.#fresh ? this.freshLatency : this.resumeLatency;
  }

  /** No start is ordered further ahead than this, ms. */
  get longestStart() {
    return Math.max(this.freshLatency.ms, this.resumeLatency.ms);
  }

  /**
   * Whether a seek of ours to that position is under way.
   * @param {number} position
   */
  seeksTo(position) {
    if (this.seekTarget === null) return false;
    return [this.seekTarget, this.#seekHeading].some((aim) => Math.abs(position - aim) < SAME_POSITION_S);
  }

  /** @param {number} position */
  clamp(position) {
    const { duration } = this.#video;
    return Math.max(0, Number.isFinite(duration) ? Math.min(position, duration) : position);
  }

  async play() {
    const video = this.#video;
    this.wantsPlaying = true;
    try {
      await video.play();
      this.#fresh = false;
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      if (name === 'AbortError') return; // Paused or reloaded meanwhile, by us or on purpose.
      this.wantsPlaying = false;
      if (name !== 'NotAllowedError') return this.#emit('media-error', { message });
      // Without a click a browser plays silent films only. A silent film in step beats a black one.
      if (video.muted) this.blocked = true;
      else video.muted = true;
      this.#emit('autoplay-blocked', { muted: !this.blocked });
    }
  }

  pause() {
    this.wantsPlaying = false;
    if (!this.#video.paused) this.#video.pause();
  }

  /** @param {number} target */
  seekTo(target) {
    this.#fresh = true;
    this.#seekBegan = this.#env.now();
    this.seekTarget = target;
    this.#seekBuffered = this.hasBuffered(target);
    this.#video.currentTime = target;
    this.#seekHeading = this.#video.currentTime;
  }

  /** Notes that the element seeks, by any cause. */
  noticeSeek() {
    this.#fresh = true;
    this.#seekBegan ??= this.#env.now();
  }

  /**
   * How far from its aim a seek of ours has landed, s, and whether its aim was buffered; null when none has landed
   * since this was asked last.
   */
  takeLanding() {
    if (this.seekTarget === null || this.#video.seeking) return null;
    const error = this.#video.currentTime - this.seekTarget;
    this.seekTarget = null;
    return { error, buffered: this.#seekBuffered };
  }

  /** How long the element has been seeking, ms. */
  get seekingFor() {
    return this.#video.seeking && this.#seekBegan !== null ? this.#env.now() - this.#seekBegan : 0;
  }

  /** How long the element has been seeking although its data is buffered, ms: its loader hangs on another request. */
  get hangsFor() {
    const ms = this.seekingFor;
    return ms > 0 && this.hasBuffered(this.#video.currentTime) ? ms : 0;
  }

  /**
   * Whether the browser offers to seek there: without byte ranges Chromium offers only 0. Without any range nothing is
   * known.
   * @param {number} position
   */
  canSeekTo(position) {
    const { seekable } = this.#video;
    if (seekable.length === 0) return true;
    for (let i = 0; i < seekable.length; i++) {
      if (seekable.start(i) - SEEKABLE_WITHIN_S <= position && position <= seekable.end(i) + SEEKABLE_WITHIN_S) return true;
    }
    return false;
  }

  /** @param {number} position */
  hasBuffered(position) {
    const { buffered } = this.#video;
    for (let i = 0; i < buffered.length; i++) {
      if (buffered.start(i) <= position && position + BUFFERED_AHEAD_S < buffered.end(i)) return true;
    }
    return false;
  }

  /** Learns from a seek of ours that is done. */
  noticeSeekEnd() {
    if (this.#seekBegan === null || !this.hasData) return;
    this.seekLatency.learn(this.#env.now() - this.#seekBegan);
    this.#seekBegan = null;
  }

  /**
   * @param {number} rate
   * @returns {boolean} whether the element took it: some round it to a list, ignore it, or throw
   */
  setRate(rate) {
    if (Math.abs(rate - this.rate) <= 0.0005) return true;
    if (rate === this.#refusedRate) return false;
    try {
      this.#video.playbackRate = rate;
    } catch {
      // NotSupportedError: the rate that holds is read below.
    }
    this.rate = this.#video.playbackRate;
    const taken = Math.abs(rate - this.rate) <= 0.001;
    this.#refusedRate = taken ? null : rate;
    return taken;
  }

  /** Takes over a rate that something else has set. */
  noticeRate() {
    this.rate = this.#video.playbackRate;
  }

  /** Called for another source: orders to the last one are void, and loading has reset the rate. */
  forget() {
    this.wantsPlaying = false;
    this.#fresh = true;
    this.#seekBegan = null;
    this.seekTarget = null;
    this.#refusedRate = null;
    this.rate = this.#video.playbackRate;
  }
}
