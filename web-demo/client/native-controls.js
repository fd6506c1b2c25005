/**
 * Tells a viewer's hand on the player's own controls from what syncVideo does, and makes a command of the former.
 *
 * Media events come as tasks, after the fact, so nothing here counts "expected" events: an event is the viewer's when the
 * element is now in a state that neither the room nor syncVideo wants.
 */

/** A drag on the time line is, to the browser, a pause with a seek right behind it. */
const PAUSE_SETTLES_MS = 60;
const SEEK_SETTLES_MS = 150;

/** How long to wait for the event of a command that was acknowledged. */
const EVENT_WITHIN_MS = 1000;

/** A seek lands where it was sent, within a rounding. */
const SAME_POSITION_S = 0.2;

/**
 * @typedef {object} Own  what syncVideo itself wants of the element
 * @property {() => boolean} wantsPlaying
 * @property {() => number|null} seekTarget   of the last seek of its own
 * @property {() => number} rate
 * @property {() => boolean} placed           whether it has put this source to its place yet
 * @property {() => void} holdStill           pause now, without it being a command
 * @property {() => void} look                something happened: see whether anything is to be done
 * @property {() => void} follow              put the element back to where the room is
 * @property {(detail: {action: string, code: string}) => void} denied
 */

export class NativeControls {
  #room;
  #video;
  #own;
  #env;
  #pending = 0;
  /** @type {number|null} where the viewer's hand has dragged it, until that is a command */
  #draggedTo = null;
  /** @type {any} */
  #timer = null;
  /** @type {[string, () => void][]} */
  #listeners;

  /**
   * @param {import('./room.js').Room} room
   * @param {HTMLVideoElement} video
   * @param {Own} own
   */
  constructor(room, video, own) {
    this.#room = room;
    this.#video = video;
    this.#own = own;
    this.#env = room.env;
    this.#listeners = [
      ['play', () => this.#onPlay()],
      ['pause', () => this.#onPause()],
      ['seeking', () => this.#onSeeking()],
      ['seeked', () => this.#onSeeked()],
      ['ratechange', () => this.#onRateChange()],
    ];
    for (const [type, fn] of this.#listeners) video.addEventListener(type, fn);
  }

  /** While the viewer's hand is on the controls, or the command made of it is under way, the element is theirs. */
  get busy() {
    return this.#pending > 0 || this.#draggedTo !== null || this.#timer !== null;
  }

  stop() {
    for (const [type, fn] of this.#listeners) this.#video.removeEventListener(type, fn);
    this.#env.clearTimeout(this.#timer);
  }

  #onPlay() {
    if (this.#video.paused || this.busy) return;
    if (this.#room.playback.playing || !this.#own.placed()) return this.#own.look();
    const position = this.#video.currentTime;
    // Everybody starts together, the one who pressed the button too.
    this.#own.holdStill();
    this.#command('play', () => this.#room.play(position));
  }

  #onPause() {
    const { paused, ended } = this.#video;
    if (!paused || ended || this.busy || !this.#own.wantsPlaying() || !this.#room.playback.playing) return;
    this.#later(PAUSE_SETTLES_MS, () => {
      if (!this.#video.paused) return this.#own.follow();
      const position = this.#video.currentTime;
      this.#command('pause', () => this.#room.pause(position));
    });
  }

  #onSeeking() {
    if (!this.#own.placed()) return;
    const target = this.#own.seekTarget();
    if (target !== null && Math.abs(this.#video.currentTime - target) < SAME_POSITION_S) return;
    this.#draggedTo = this.#video.currentTime;
    this.#env.clearTimeout(this.#timer);
    this.#timer = null;
  }

  #onSeeked() {
    if (this.#draggedTo === null) return;
    this.#later(SEEK_SETTLES_MS, () => {
      const position = this.#draggedTo;
      if (this.#video.seeking || position === null) return; // Still dragging: its own 'seeked' will follow.
      this.#draggedTo = null;
      this.#command('seek', () => this.#room.seek(position));
    });
  }

  #onRateChange() {
    const rate = this.#video.playbackRate;
    if (Math.abs(rate - this.#own.rate()) < 0.001 || !this.#own.placed()) return;
    this.#command('rate', () => this.#room.setRate(rate));
  }

  /**
   * @param {string} action
   * @param {() => Promise<import('./session.js').Committed>} send
   */
  async #command(action, send) {
    if (!this.#room.self.canControl) {
      this.#own.denied({ action, code: 'NOT_IN_CONTROL' });
      return this.#own.follow();
    }
    this.#pending += 1;
    try {
      await this.#arrival(await send());
    } catch (error) {
      this.#own.denied({ action, code: /** @type {any} */ (error).code ?? 'INTERNAL' });
    }
    this.#pending -= 1;
    this.#own.follow();
  }

  /**
   * The acknowledgement may overtake the event: until that is here too, the room looks as if nothing had happened.
   * @param {import('./session.js').Committed} committed
   */
  #arrival({ epoch, seq }) {
    const here = () => this.#room.epoch !== epoch || this.#room.seq >= seq;
    if (here()) return;
    return new Promise((resolve) => {
      const done = () => {
        this.#env.clearTimeout(timer);
        this.#room.removeEventListener('change', check);
        resolve(undefined);
      };
      const check = () => here() && done();
      const timer = this.#env.setTimeout(done, EVENT_WITHIN_MS);
      this.#room.addEventListener('change', check);
    });
  }

  /**
   * @param {number} ms
   * @param {() => void} fn
   */
  #later(ms, fn) {
    this.#env.clearTimeout(this.#timer);
    this.#timer = this.#env.setTimeout(() => {
      this.#timer = null;
      fn();
    }, ms);
  }
}
