/**
 * Turns what a viewer does on the player's own controls into commands to the room, and keeps what a browser or a player
 * engine does to the element out of it.
 *
 * Media events come as tasks, after the fact, so nothing here counts "expected" events. An event is not syncVideo's own
 * when the element is now in a state that neither the room nor syncVideo wants; it is the viewer's only when a person
 * has just touched the page (`HumanInput`) and nothing else explains it. Everything else concerns this player alone.
 */

/** A drag on the time line is, to the browser, a pause with a seek right behind it. */
const PAUSE_SETTLES_MS = 60;
/** After the last 'seeking' of a drag. Its data may never come: the command doesn't wait for 'seeked'. */
const SEEK_SETTLES_MS = 150;
/** A pointer that stays down counts as dragging for at most this long. */
const DRAG_AT_MOST_MS = 2000;

/** Longest wait for a command's event: the room may be unreachable, and other members' commands go on. */
const COMMAND_WITHIN_MS = 2000;

const HAVE_FUTURE_DATA = 3;

/**
 * @typedef {object} Own  what syncVideo itself wants of the element
 * @property {() => boolean} wantsPlaying
 * @property {(position: number) => boolean} seeksTo  whether a seek of its own to that position is under way
 * @property {() => number} rate
 * @property {() => boolean} placed           whether it has put this source to its place yet
 * @property {() => boolean} live             whether the element shows a live stream, whose positions mean nothing here
 * @property {() => void} holdStill           pause now, without it being a command
 * @property {() => void} follow              put the element back to where the room is
 * @property {() => void} interrupted         the browser has paused the element
 * @property {() => void} hopped              the browser or an engine has moved it to another place
 * @property {() => void} rateForced          something else has set another rate
 * @property {(detail: {action: string, code: string}) => void} denied
 */

export class NativeControls {
  #room;
  #video;
  #own;
  #env;
  #human;
  /** The command that is under way, if any. @type {object|null} */
  #pending = null;
  /** @type {{position: number, since: number}|null} where the viewer's hand has dragged it, until that is a command */
  #drag = null;
  /** When something other than syncVideo has last paused it. */
  #pausedAt = -Infinity;
  /** Whether the film stood still for want of data before it was moved, as before a hole that an engine hops over. */
  #starving = false;
  /** @type {any} */
  #timer = null;
  /** @type {[string, () => void][]} */
  #listeners;

  /**
   * @param {import('./room.js').Room} room
   * @param {HTMLVideoElement} video
   * @param {import('./human.js').HumanInput} human
   * @param {Own} own
   */
  constructor(room, video, human, own) {
    this.#room = room;
    this.#video = video;
    this.#human = human;
    this.#own = own;
    this.#env = room.env;
    this.#listeners = [
      ['play', () => this.#onPlay()],
      ['pause', () => this.#onPause()],
      ['seeking', () => this.#onSeeking()],
      ['ratechange', () => this.#onRateChange()],
      ['waiting', () => (this.#starving = true)],
      ['playing', () => (this.#starving = false)],
      ['timeupdate', () => (this.#starving &&= video.readyState < HAVE_FUTURE_DATA)],
    ];
    for (const [type, fn] of this.#listeners) video.addEventListener(type, fn);
  }

  /** Whether the viewer is at the controls, or a command made there is under way: the element is left alone. */
  get busy() {
    return this.#pending !== null || this.#drag !== null || this.#timer !== null;
  }

  /** Called for another source: drops actions on the last one. */
  forget() {
    this.#pending = null;
    this.#drag = null;
    this.#starving = false;
    this.#env.clearTimeout(this.#timer);
    this.#timer = null;
  }

  stop() {
    for (const [type, fn] of this.#listeners) this.#video.removeEventListener(type, fn);
    this.forget();
  }

  #onPlay() {
    if (this.#video.paused || this.busy || this.#own.wantsPlaying()) return;
    const { playback, wantsPlaying } = this.#room;
    // No command: a start before the element was put to its place (`autoplay`), without a person (a script), or while
    // the room means to play anyway (at the gate it starts when all are ready). The element goes back to where the room
    // is.
    if (playback.playing || wantsPlaying || !this.#own.placed() || !this.#byHand('play')) return this.#own.follow();
    const position = this.#video.currentTime;
    // Everybody starts together, the one who pressed the button too.
    this.#own.holdStill();
    this.#command('play', () => this.#room.play(position));
  }

  #onPause() {
    const { paused, ended } = this.#video;
    if (ended || !this.#own.wantsPlaying()) return;
    this.#pausedAt = this.#env.now();
    if (!paused || this.busy) return;
    if (!this.#room.playback.playing) return this.#own.follow();
    const byHand = this.#byHand('pause');
    this.#later(PAUSE_SETTLES_MS, () => {
      if (!this.#video.paused) return this.#own.follow();
      // Asked once more: a page that went to the background, or an error, is often told of only after the pause.
      if (!byHand || !this.#canBeHand) return this.#own.interrupted();
      const position = this.#video.currentTime;
      this.#command('pause', () => this.#room.pause(position));
    });
  }

  #onSeeking() {
    if (!this.#own.placed() || this.#own.live()) return;
    const position = this.#video.currentTime;
    if (this.#drag === null) {
      if (this.#own.seeksTo(position)) return;
      const act = this.#env.now() - this.#pausedAt < PAUSE_SETTLES_MS ? 'drag' : 'seek';
      if (!this.#byHand(act, this.#starving)) return this.#own.hopped();
    }
    this.#drag = { position, since: this.#drag?.since ?? this.#env.now() };
    this.#settleDrag();
  }

  #settleDrag() {
    this.#later(SEEK_SETTLES_MS, () => {
      if (this.#drag === null) return;
      const { position, since } = this.#drag;
      if (this.#human.held && this.#env.now() - since < DRAG_AT_MOST_MS) return this.#settleDrag();
      this.#drag = null;
      this.#command('seek', () => this.#room.seek(position));
    });
  }

  #onRateChange() {
    const rate = this.#video.playbackRate;
    if (Math.abs(rate - this.#own.rate()) < 0.001 || !this.#own.placed()) return;
    if (!this.#byHand('rate')) return this.#own.rateForced();
    this.#command('rate', () => this.#room.setRate(rate));
  }

  /**
   * @param {import('./human.js').Act} act
   * @param {boolean} [starving]
   */
  #byHand(act, starving) {
    return this.#canBeHand && this.#human.did(act, starving);
  }

  /** Nobody touches a hidden page, and a broken or emptied element stops by itself. */
  get #canBeHand() {
    const { error, readyState } = this.#video;
    return !error && readyState > 0 && !this.#env.hidden();
  }

  /**
   * @param {string} action
   * @param {() => Promise<import('./session.js').Committed>} send
   */
  async #command(action, send) {
    this.#human.spend();
    if (!this.#room.self.canControl) {
      this.#own.denied({ action, code: 'NOT_IN_CONTROL' });
      return this.#own.follow();
    }
    const command = (this.#pending = {});
    const sent = send();
    sent.catch((error) => this.#own.denied({ action, code: error.code ?? 'INTERNAL' }));
    await this.#arrival(sent);
    if (this.#pending !== command) return;
    this.#pending = null;
    this.#own.follow();
  }

  /**
   * Resolves when the command's event is here, which its acknowledgement may overtake; when it was refused; or after a
   * while. Until then the element stays as the viewer left it.
   * @param {Promise<import('./session.js').Committed>} sent
   * @returns {Promise<void>}
   */
  #arrival(sent) {
    return new Promise((resolve) => {
      /** @type {import('./session.js').Committed|null} */
      let at = null;
      const done = () => {
        this.#env.clearTimeout(timer);
        this.#room.removeEventListener('change', check);
        resolve();
      };
      const check = () => {
        if (at && (this.#room.epoch !== at.epoch || this.#room.seq >= at.seq)) done();
      };
      const timer = this.#env.setTimeout(done, COMMAND_WITHIN_MS);
      this.#room.addEventListener('change', check);
      sent.then((committed) => {
        at = committed;
        check();
      }, done);
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
