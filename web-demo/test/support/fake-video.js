/**
 * A media element as bad as real ones: it starts late, seeks slowly, runs a little off its rate, and reports its
 * position with jitter. `truePosition()` is the position on the screen. Its events come as tasks, after the fact.
 */
export class FakeVideo extends EventTarget {
  constructor(env, options = {}) {
    super();
    this.env = env;
    this.options = {
      duration: 600, land: (position) => position, takesRate: () => true, roundsRate: (rate) => rate, works: () => true, seekData: () => true, playsAt: (rate) => rate, startMs: 35, seekMs: [80, 200], speed: 1, jitterMs: 3, outlierMs: 0, frames: false, autoplay: 'allowed',
      ...options,
    };
    this.readyState = 0;
    this.paused = true;
    this.ended = false;
    this.seeking = false;
    this.error = null;
    this.networkState = 0;
    this.controls = false;
    /** ':hover', ':active' */
    this.pseudo = new Set();
    this.matches = (selector) => this.pseudo.has(selector);
    this.loop = false;
    this.loads = 0;
    this.muted = false;
    this.currentSrc = '';
    this.duration = NaN;
    this.preservesPitch = false;
    this.calls = { play: 0, pause: 0, seek: 0, rate: 0 };
    this.position = 0;
    this.since = env.now();
    this.moving = false;
    this.rate = 1;
    /** The rate that is heard, as opposed to the one that was asked for. */
    this.heardRate = 1;
    /** After a seek nothing is decoded yet. */
    this.fresh = true;
    this.stalled = false;
    if (this.options.frames) {
      this.requestVideoFrameCallback = (fn) => this.#requestFrame(fn);
      this.cancelVideoFrameCallback = (id) => env.clearTimeout(id);
    }
  }

  set src(url) {
    this.attribute = url;
    this.load();
  }

  removeAttribute(name) {
    if (name === 'src') this.attribute = undefined;
  }

  /** `currentSrc` outlives an element that was emptied, as in browsers. */
  load() {
    const url = this.attribute;
    this.#anchor(0);
    this.moving = false;
    this.paused = true;
    this.seeking = this.ended = false;
    this.rate = this.heardRate = 1;
    this.fresh = true;
    this.readyState = 0;
    this.error = null;
    this.duration = NaN;
    for (const timer of ['loadTimer', 'seekTimer', 'moveTimer', 'endTimer']) this.env.clearTimeout(this[timer]);
    this.networkState = url === undefined ? 0 : 2;
    this.#fire('emptied');
    if (url === undefined) return;
    this.currentSrc = url;
    this.loads += 1;
    this.loadTimer = this.env.setTimeout(() => {
      if (!this.options.works(url)) {
        this.networkState = 3;
        return this.fail(4, { paused: false });
      }
      this.networkState = 1;
      this.duration = this.options.duration;
      this.readyState = 4;
      this.#fire('loadedmetadata', 'canplay');
      const fragment = /#t=(\d+)/.exec(url);
      if (fragment) this.seek(Number(fragment[1]));
    }, 120);
  }

  get seekable() {
    const { seekable = this.duration } = this.options;
    return { length: Number.isNaN(this.duration) ? 0 : 1, start: () => 0, end: () => seekable };
  }

  get buffered() {
    return { length: 1, start: () => 0, end: () => this.options.buffered ?? 0 };
  }

  truePosition(at = this.env.now()) {
    const moved = this.moving ? Math.max(0, ((at - this.since) / 1000) * this.heardRate * this.options.speed) : 0;
    return Math.min(this.position + moved, this.options.duration);
  }

  get currentTime() {
    if (!this.moving) return this.position;
    const { jitterMs, outlierMs, stepMs } = this.options;
    if (stepMs) return Math.floor((this.truePosition() * 1000) / stepMs) * (stepMs / 1000);
    const off = this.env.random() < 0.1 && outlierMs ? outlierMs : jitterMs;
    return Math.max(0, this.truePosition() + ((this.env.random() * 2 - 1) * off) / 1000);
  }

  set currentTime(position) {
    this.calls.seek += 1;
    this.seek(this.options.land(position));
  }

  /** An error of the decoder or the network: Chromium tells of it, and of a pause after it. */
  fail(code, { paused = true } = {}) {
    this.#anchor(this.truePosition());
    this.moving = false;
    this.error = { code, message: `error ${code}` };
    if (paused && !this.paused) {
      this.paused = true;
      return this.#fire('error', 'pause');
    }
    this.#fire('error');
  }

  /** The length becomes known, or grows. */
  setDuration(seconds) {
    this.duration = this.options.duration = seconds;
    this.#fire('durationchange');
  }

  get playbackRate() {
    return this.rate;
  }

  set playbackRate(rate) {
    this.calls.rate += 1;
    if (this.options.takesRate(rate)) this.setRate(this.options.roundsRate(rate));
  }

  async play() {
    this.calls.play += 1;
    const { autoplay } = this.options;
    if (autoplay === 'never' || (autoplay === 'muted' && !this.muted)) {
      throw Object.assign(new Error('a click first'), { name: 'NotAllowedError' });
    }
    this.begin();
  }

  pause() {
    this.calls.pause += 1;
    this.halt();
  }

  // Both a script's and a viewer's actions end here.

  begin() {
    if (!this.paused) return;
    this.paused = false;
    this.ended = false;
    this.#fire('timeupdate', 'play'); // As Chromium does.
    const { startMs, resumeMs = startMs } = this.options;
    this.#moveAfter(this.fresh ? startMs : resumeMs);
    this.fresh = false;
  }

  halt() {
    if (this.paused) return;
    this.#anchor(this.truePosition());
    this.moving = false;
    this.paused = true;
    this.env.clearTimeout(this.moveTimer);
    this.#fire('timeupdate', 'pause');
  }

  seek(position) {
    const [least, most] = this.options.seekMs;
    this.#anchor(Math.min(position, this.options.duration));
    this.moving = false;
    this.fresh = true;
    this.ended = false;
    this.seeking = true;
    this.readyState = 1;
    this.#fire('seeking');
    this.env.clearTimeout(this.seekTimer);
    if (!this.options.seekData(this.position)) return; // Its data never comes.
    this.seekTimer = this.env.setTimeout(() => {
      this.seeking = false;
      this.readyState = this.stalled ? 2 : 4;
      this.#fire('seeked', 'canplay');
      if (!this.paused) this.#moveAfter(5);
    }, least + this.env.random() * (most - least));
  }

  setRate(rate) {
    if (rate === this.rate) return;
    this.rate = rate;
    this.#fire('ratechange');
    const hear = () => {
      this.#anchor(this.truePosition());
      this.heardRate = this.options.playsAt(rate);
    };
    const { rateMs = 0 } = this.options;
    if (rateMs > 0 && this.moving) this.env.setTimeout(hear, rateMs);
    else hear();
  }

  /** The network gives nothing for a while. */
  stall() {
    this.#anchor(this.truePosition());
    this.moving = false;
    this.stalled = true;
    this.readyState = 2;
    this.#fire('waiting');
  }

  unstall() {
    this.stalled = false;
    this.readyState = 4;
    if (!this.paused) this.#moveAfter(5);
    this.#fire('canplay', 'playing');
  }

  /** A picture in 24 a second; of them `dropsFrames` are not shown. */
  getVideoPlaybackQuality() {
    this.#countFrames();
    return { totalVideoFrames: Math.floor(this.frames), droppedVideoFrames: Math.floor(this.dropped) };
  }

  #countFrames() {
    const frames = this.moving ? ((this.env.now() - Math.max(this.since, this.countedAt ?? 0)) / 1000) * 24 : 0;
    this.countedAt = this.env.now();
    this.frames = (this.frames ?? 0) + frames;
    this.dropped = (this.dropped ?? 0) + frames * (this.options.dropsFrames ?? 0);
  }

  /** Its process is stopped, and goes on. */
  suspend() {
    this.#anchor(this.truePosition());
    this.moving = false;
  }

  wake() {
    if (!this.paused && !this.seeking) this.#moveAfter(5);
  }

  #moveAfter(ms) {
    this.env.clearTimeout(this.moveTimer);
    this.moveTimer = this.env.setTimeout(() => {
      if (this.paused || this.seeking || this.stalled) return;
      this.#anchor(this.position);
      this.moving = true;
      this.#fire('playing');
      this.#watchEnd();
    }, ms);
  }

  #watchEnd() {
    this.env.clearTimeout(this.endTimer);
    if (!this.moving) return;
    if (this.truePosition() >= this.options.duration) {
      this.#anchor(this.options.duration);
      if (this.loop) return this.seek(0);
      this.moving = false;
      this.paused = true;
      this.ended = true;
      return this.#fire('pause', 'ended');
    }
    this.endTimer = this.env.setTimeout(() => this.#watchEnd(), 100);
  }

  /** 24 frames a second on a screen of 60 Hz: a frame is shown at the refresh after its time. */
  #requestFrame(fn) {
    return this.env.setTimeout(() => {
      if (!this.moving) return this.#requestFrame(fn);
      const mediaTime = Math.floor(this.truePosition() * 24) / 24;
      const shownAt = this.since + ((mediaTime - this.position) / (this.rate * this.options.speed)) * 1000;
      fn(this.env.now(), { mediaTime, expectedDisplayTime: shownAt + this.env.random() * 16.7 });
    }, 1000 / 24);
  }

  #anchor(position) {
    this.position = position;
    this.since = this.env.now();
  }

  #fire(...types) {
    this.env.setTimeout(() => types.forEach((type) => this.dispatchEvent(new Event(type))), 0);
  }
}
