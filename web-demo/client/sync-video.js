/**
 * Keeps a media element where the room is. One function, `#step`, looks at the room and at the element and does the next
 * thing; timers and events only say when to look. There is no plan to go stale: a start that came too late, a seek that
 * took too long, a command that arrived meanwhile are all just another look.
 *
 * @typedef {'idle'|'rate'|'seek'|'waiting'} Mode
 *   in step (playing or paused) · correcting by rate · jumping · for data, the clock, the gate, the start
 *
 * @typedef {object} SyncOptions
 * @property {boolean} [manageSource]  load the room's URL into the element (default true)
 * @property {string|null} [crossOrigin]  for that; left alone when absent: asking for CORS breaks hosts that have none
 */
import { DriftFilter, Latency, RateController } from './drift.js';
import { NativeControls } from './native-controls.js';
import { Reporter } from './report.js';
import { SourceLoader } from './source.js';
import { SyncStats } from './sync-stats.js';
import { FollowedVector } from './vector.js';

const LOOK_MS = 100;
const LOOK_PAUSED_MS = 250;
const LOOK_HIDDEN_MS = 1000;

/** Beyond this, playing faster is no way to catch up. */
const SEEK_ABOVE_MS = 600;
/** Right after a start there is nobody to startle yet: a jump gets a late joiner into step sooner. */
const SEEK_ABOVE_AFTER_START_MS = 200;
const ACQUIRING_MS = 2500;
const SEEK_COOLDOWN_MS = 2000;
const SEEK_COOLDOWN_CAP_MS = 30_000;
const SEEKS_CALM_AFTER_MS = 15_000;

/** What a start readings before this long after are worth: nothing, the pipeline is still filling. */
const START_SETTLES_MS = 120;
/** A start this much behind is left to the rate; more is worth a seek ahead. */
const START_BEHIND_MS = 120;
/** A player that stands this little ahead waits for the room instead of seeking back. */
const WAIT_AHEAD_MS = 1500;
/** Some browsers buffer only to the current frame until they play. */
const DATA_WITHIN_MS = 3000;

const HAVE_METADATA = 1;
const HAVE_CURRENT_DATA = 2;
const HAVE_FUTURE_DATA = 3;

/**
 * @param {import('./room.js').Room} room
 * @param {HTMLVideoElement} video
 * @param {SyncOptions} [options]
 */
export function syncVideo(room, video, options = {}) {
  return new VideoSync(room, video, options);
}

export class VideoSync {
  #room;
  #video;
  #env;
  #source;
  #controls;
  #reporter;
  #vector;
  #filter = new DriftFilter();
  #controller = new RateController();
  #seekLatency = new Latency(250, 3000);
  #startLatency = new Latency(25, 400);
  #stats = new SyncStats();
  /** @type {Map<string, Set<(detail: any) => void>>} */
  #listeners = new Map();
  /** @type {(() => void)[]} */
  #undo = [];

  #wantPlaying = false;
  #rate = 1;
  /** @type {{target: number, at: number}|null} our seek that has not brought data to show yet */
  #seek = null;
  /** @type {number|null} */
  #lastSeekTarget = null;
  /** @type {number|null} where a pause has put the element */
  #heldAt = null;
  #placed = false;
  #blocked = false;
  #startedAt = -Infinity;
  #startLearned = true;
  #startTries = 0;
  #noSeekBefore = -Infinity;
  #lastJumpAt = -Infinity;
  #jumps = 0;
  #frameAt = -Infinity;
  #frameRequest = 0;
  /** @type {number|null} id of the gate that was answered */
  #readyFor = null;
  /** @type {any} */
  #timer = null;
  #stopped = false;

  /** @type {number|null} ms, latest; positive when this player is ahead */
  drift = null;
  /** @type {Mode} */
  mode = 'waiting';

  /**
   * @param {import('./room.js').Room} room
   * @param {HTMLVideoElement} video
   * @param {SyncOptions} options
   */
  constructor(room, video, options) {
    this.#room = room;
    this.#video = video;
    this.#env = room.env;
    this.#vector = new FollowedVector(room.playback);
    this.#rate = video.playbackRate;
    this.#source = new SourceLoader(room, video, options);
    this.#controls = new NativeControls(room, video, {
      wantsPlaying: () => this.#wantPlaying,
      seekTarget: () => this.#lastSeekTarget,
      rate: () => this.#rate,
      placed: () => this.#placed,
      holdStill: () => this.#pause(),
      follow: () => {
        this.#noSeekBefore = -Infinity;
        this.#heldAt = null;
        this.#look();
      },
      denied: (detail) => this.#emit('denied', detail),
    });
    this.#reporter = new Reporter(room, () => this.#reading());
    this.#listen();
    this.#requestFrame();
    this.#look();
  }

  stats() {
    return {
      ...this.#stats.summary(),
      mode: this.mode,
      drift: this.drift,
      rate: this.#rate,
      source: this.#framesAreFresh() ? 'frames' : 'currentTime',
      seekLatencyMs: this.#seekLatency.ms,
      startLatencyMs: this.#startLatency.ms,
    };
  }

  /**
   * `drift` {drift, mode, rate} · `mode` · `denied` {action, code} · `autoplay-blocked` {muted} (true: it plays, without
   * sound) · `media-error` {message}
   * @param {string} type
   * @param {(detail: any) => void} fn
   * @returns {() => void} stops it
   */
  on(type, fn) {
    const set = this.#listeners.get(type) ?? new Set();
    this.#listeners.set(type, set.add(fn));
    return () => set.delete(fn);
  }

  /** After `autoplay-blocked`, from a click: plays, with the sound that the page wants. */
  resume({ muted = false } = {}) {
    this.#blocked = false;
    this.#video.muted = muted;
    this.#look();
  }

  stop() {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#env.clearTimeout(this.#timer);
    this.#video.cancelVideoFrameCallback?.(this.#frameRequest);
    this.#undo.forEach((undo) => undo());
    this.#controls.stop();
    this.#reporter.stop();
    this.#setRate(this.#room.playback.rate);
  }

  #listen() {
    const onRoom = (/** @type {string} */ type, /** @type {(event: any) => void} */ fn) => {
      this.#room.addEventListener(type, fn);
      this.#undo.push(() => this.#room.removeEventListener(type, fn));
    };
    const onVideo = (/** @type {string} */ type, /** @type {() => void} */ fn) => {
      this.#video.addEventListener(type, fn);
      this.#undo.push(() => this.#video.removeEventListener(type, fn));
    };
    onRoom('playback', () => this.#onPlayback());
    onRoom('change', () => this.#look());
    // In a background tab timers come once a second or less; what the network brings still comes at once.
    onRoom('tick', () => this.#env.hidden() && this.#look());
    for (const type of ['seeked', 'canplay', 'playing', 'timeupdate', 'ended', 'loadedmetadata', 'durationchange']) {
      onVideo(type, () => this.#look());
    }
    for (const type of ['waiting', 'stalled', 'playing', 'canplay', 'seeked', 'pause']) {
      onVideo(type, () => this.#reporter.noticeBuffering());
    }
    onVideo('waiting', () => this.#filter.clear());
    onVideo('emptied', () => this.#onNewSource());
    onVideo('error', () => this.#emit('media-error', { message: this.#video.error?.message ?? 'the media did not load' }));
    this.#undo.push(this.#env.onPage('visibilitychange', () => this.#look()));
  }

  #onPlayback() {
    this.#vector.follow(this.#room.playback, this.#room.clock.roomTime());
    this.#filter.clear();
    this.#controller.reset();
    this.#noSeekBefore = -Infinity;
    this.#startTries = 0;
    this.#heldAt = null;
    this.#look();
  }

  #onNewSource() {
    this.#placed = false;
    this.#seek = null;
    this.#lastSeekTarget = null;
    this.#heldAt = null;
    this.#wantPlaying = false;
    this.#startTries = 0;
    this.#rate = this.#video.playbackRate; // Loading has reset it.
    this.#filter.clear();
  }

  #look() {
    if (this.#stopped) return;
    this.#env.clearTimeout(this.#timer);
    const soon = this.#step();
    const pace = this.#env.hidden() ? LOOK_HIDDEN_MS : this.#video.paused ? LOOK_PAUSED_MS : LOOK_MS;
    this.#timer = this.#env.setTimeout(() => this.#look(), Math.max(0, Math.min(soon ?? pace, pace)));
  }

  /** @returns {number|void} ms after which to look again, when that is sooner than usual */
  #step() {
    const room = this.#room;
    if (room.state === 'closed' || this.#controls.busy) return;
    if (room.state !== 'reconnecting') this.#source.follow();
    if (!room.clock.synced && !this.#placed) return this.#setMode('waiting');
    if (this.#video.readyState < HAVE_METADATA || this.#video.error) return this.#setMode('waiting');

    const gate = this.#awaitedGate();
    if (gate) return this.#prepare(gate);
    return room.playback.playing ? this.#play() : this.#hold(room.playback.position);
  }

  #awaitedGate() {
    const { gate } = this.#room;
    const { userId } = this.#room.self;
    return gate?.awaiting.includes(userId) && !gate.ready.includes(userId) ? gate : null;
  }

  /** @param {import('./model.js').Gate} gate */
  #prepare(gate) {
    this.#hold(gate.targetTime);
    this.#setMode('waiting');
    if (this.#readyFor === gate.id || !this.#isAt(gate.targetTime) || !this.#hasData()) return;
    this.#readyFor = gate.id;
    // A gate that closed meanwhile needs no answer; one that was lost with the connection is answered again.
    this.#room.sendReady(gate).catch((error) => {
      if (error.code === 'DISCONNECTED' || error.code === 'TIMEOUT') this.#readyFor = null;
    });
  }

  /**
   * Stands still at a position.
   * @param {number} position
   * @returns {number|void}
   */
  #hold(position) {
    const target = this.#clamp(position);
    const video = this.#video;
    if (!video.paused && !video.ended) {
      const left = this.#untilPause(target);
      if (left > 0) return left;
      this.#pause();
    }
    if (this.#heldAt !== target) {
      this.#heldAt = target;
      if (Math.abs(video.currentTime - target) > 0.01) this.#seekTo(target);
    }
    this.#finishSeek();
    this.#placed = true;
    this.#setDrift((video.currentTime - target) * 1000);
    this.#setMode(video.seeking ? 'seek' : 'idle');
  }

  /**
   * A pause may lie a little ahead in the film, and in time: playing on up to it beats a jump.
   * @param {number} target
   * @returns {number} ms
   */
  #untilPause(target) {
    const inFilm = ((target - this.#video.currentTime) / this.#video.playbackRate) * 1000;
    const inTime = this.#room.playback.at - this.#room.clock.roomTime();
    return Math.min(inFilm, inTime);
  }

  /** @returns {number|void} */
  #play() {
    const now = this.#room.clock.roomTime();
    if (this.#isOver(now)) return;
    this.#heldAt = null;
    if (this.#video.paused) return this.#start(now);
    if (!this.#vector.runsAt(now)) {
      // A start that is scheduled: stand where it begins.
      this.#pause();
      return this.#start(now);
    }
    this.#wantPlaying = true;
    return this.#correct(now);
  }

  /**
   * At the end nothing is corrected: playing an ended film would start it over.
   * @param {number} now
   */
  #isOver(now) {
    const { duration, ended, paused } = this.#video;
    if (!Number.isFinite(duration)) return false;
    const left = duration - this.#vector.positionAt(now);
    if (left <= 0 && (paused || ended)) this.#hold(duration);
    if (left > 1 || (left > 0 && !ended)) return false;
    this.#setRate(this.#vector.rateAt(now));
    this.#setMode('idle');
    return true;
  }

  /**
   * From standing still: seek to where the room will be when that is done, and start at that moment.
   * @param {number} now
   * @returns {number|void}
   */
  #start(now) {
    if (this.#blocked) return this.#setMode('waiting');
    const video = this.#video;
    const lead = this.#startLatency.ms;
    this.#finishSeek();
    if (this.#seek && video.seeking) return;

    const { at, position } = this.#vector.current;
    const early = Math.max(video.currentTime, position - 0.01) === video.currentTime;
    const wait = Math.max(this.#vector.reaches(video.currentTime), at) - now - lead;
    const mostWait = Math.max(WAIT_AHEAD_MS, at - now - lead + 50);
    const lastTry = this.#startTries >= 3 && this.#isAt(this.#lastSeekTarget ?? -1);
    const here = early && wait <= mostWait && (wait >= -START_BEHIND_MS || lastTry);
    if (!here) return this.#seekAhead(now);

    this.#placed = true;
    this.#setMode('waiting');
    if (!this.#hasData()) return;
    if (wait > 1) return wait;
    this.#begin();
  }

  /** @param {number} now */
  #seekAhead(now) {
    const lead = this.#seekLatency.ms * 1.2 + this.#startLatency.ms + 30;
    const arrival = Math.max(this.#vector.current.at, now + lead);
    this.#startTries += 1;
    this.#placed = true;
    this.#setMode('seek');
    this.#seekTo(this.#clamp(this.#vector.positionAt(arrival)));
  }

  #begin() {
    this.#setRate(this.#vector.current.rate);
    this.#startedAt = this.#env.now();
    this.#startLearned = this.#env.hidden();
    this.#startTries = 0;
    this.#filter.clear();
    this.#controller.reset();
    this.#playElement();
  }

  async #playElement() {
    const video = this.#video;
    this.#wantPlaying = true;
    try {
      await video.play();
    } catch (error) {
      const { name, message } = /** @type {Error} */ (error);
      if (name === 'AbortError') return; // Paused or reloaded meanwhile, by us or on purpose.
      this.#wantPlaying = false;
      if (name !== 'NotAllowedError') return this.#emit('media-error', { message });
      if (video.muted) {
        this.#blocked = true;
        this.#emit('autoplay-blocked', { muted: false });
        return;
      }
      // Without a click a browser plays silent films only. A silent film in step beats a black one.
      video.muted = true;
      this.#emit('autoplay-blocked', { muted: true });
      this.#look();
    }
  }

  /**
   * Playing: measure, and correct.
   * @param {number} now
   * @returns {number|void}
   */
  #correct(now) {
    const video = this.#video;
    const local = this.#env.now();
    this.#finishSeek();
    if (video.seeking || video.readyState < HAVE_FUTURE_DATA) {
      this.#filter.clear();
      return this.#setMode(video.seeking ? 'seek' : 'waiting');
    }
    if (local - this.#startedAt < START_SETTLES_MS) return;
    if (!this.#framesAreFresh()) this.#sample(local, video.currentTime);
    const drift = this.#filter.read(local);
    if (drift === null) return LOOK_MS / 4;

    this.#setDrift(drift);
    this.#learnStart(drift);
    if (this.#mayJump(drift, local)) return this.#jump(local);

    const interval = this.#env.hidden() ? LOOK_HIDDEN_MS : LOOK_MS;
    const base = this.#vector.rateAt(now);
    this.#setRate(base * (1 + this.#controller.deviation(drift, interval)));
    this.#setMode(this.#controller.correcting ? 'rate' : 'idle');
    this.#stats.add(drift);
  }

  /**
   * What is left of a start's aim is the best measure of how long starting takes here.
   * @param {number} drift
   */
  #learnStart(drift) {
    if (this.#startLearned) return;
    this.#startLearned = true;
    if (Math.abs(drift) < 250) this.#startLatency.nudge(-0.6 * drift);
  }

  /**
   * @param {number} drift
   * @param {number} local
   */
  #mayJump(drift, local) {
    const acquiring = local - this.#startedAt < ACQUIRING_MS && this.#jumps < 2;
    const size = Math.abs(drift);
    return size > (acquiring ? SEEK_ABOVE_AFTER_START_MS : SEEK_ABOVE_MS) && local >= this.#noSeekBefore;
  }

  /**
   * Stop, and let `#start` find the way back in. A device that can't keep up gets ever longer pauses between jumps.
   * @param {number} local
   * @returns {number|void}
   */
  #jump(local) {
    this.#jumps = local - this.#lastJumpAt < SEEKS_CALM_AFTER_MS ? this.#jumps + 1 : 1;
    this.#lastJumpAt = local;
    this.#noSeekBefore = local + Math.min(SEEK_COOLDOWN_CAP_MS, SEEK_COOLDOWN_MS * 2 ** (this.#jumps - 1));
    this.#startTries = 0;
    this.#stats.jumps += 1;
    this.#pause();
    return this.#start(this.#room.clock.roomTime());
  }

  #pause() {
    this.#wantPlaying = false;
    this.#filter.clear();
    this.#controller.reset();
    if (!this.#video.paused) this.#video.pause();
  }

  /** @param {number} target */
  #seekTo(target) {
    this.#seek = { target, at: this.#env.now() };
    this.#lastSeekTarget = target;
    this.#filter.clear();
    this.#video.currentTime = target;
  }

  #finishSeek() {
    if (!this.#seek || this.#video.seeking || !this.#hasData()) return;
    this.#seekLatency.learn(this.#env.now() - this.#seek.at);
    this.#seek = null;
  }

  /** Enough to show and to go on with. */
  #hasData() {
    const { readyState, seeking, ended } = this.#video;
    if (seeking) return false;
    if (readyState >= HAVE_FUTURE_DATA || ended) return true;
    const waited = this.#env.now() - (this.#seek?.at ?? this.#env.now());
    return readyState >= HAVE_CURRENT_DATA && waited > DATA_WITHIN_MS;
  }

  /** @param {number} position */
  #isAt(position) {
    return !this.#video.seeking && Math.abs(this.#video.currentTime - this.#clamp(position)) < 0.1;
  }

  /** @param {number} position */
  #clamp(position) {
    const { duration } = this.#video;
    return Math.max(0, Number.isFinite(duration) ? Math.min(position, duration) : position);
  }

  /** @param {number} rate */
  #setRate(rate) {
    if (Math.abs(rate - this.#rate) > 0.0005) {
      this.#rate = rate;
      this.#video.playbackRate = rate;
    }
    const base = this.#vector.rateAt(this.#room.clock.roomTime());
    this.#filter.setSlip(this.#env.now(), this.#rate - base);
  }

  /**
   * @param {number} local when the film stood at `position`
   * @param {number} position
   */
  #sample(local, position) {
    this.#filter.add(local, (position - this.#vector.positionAt(this.#room.clock.roomTime(local))) * 1000);
  }

  /**
   * A frame on its way to the screen says which moment of the film is shown at which moment, exactly; `currentTime` is
   * an estimate, and in some browsers one of 40 ms steps.
   */
  #requestFrame() {
    if (this.#stopped || !this.#video.requestVideoFrameCallback) return;
    this.#frameRequest = this.#video.requestVideoFrameCallback((_now, { mediaTime, expectedDisplayTime }) => {
      const local = this.#env.now();
      this.#frameAt = local;
      const measurable = !this.#video.paused && !this.#video.seeking && local - this.#startedAt >= START_SETTLES_MS;
      if (measurable) this.#sample(expectedDisplayTime, mediaTime);
      this.#requestFrame();
    });
  }

  /** Frames stop in background tabs, for sound without pictures, and on slide shows. */
  #framesAreFresh() {
    return this.#env.now() - this.#frameAt < 300;
  }

  /** @returns {import('./report.js').Reading} */
  #reading() {
    const { currentTime, paused, seeking, readyState, ended } = this.#video;
    const { playing } = this.#room.playback;
    const expected = playing || this.#room.gate !== null;
    const stuck = readyState < HAVE_FUTURE_DATA || seeking;
    return {
      position: currentTime,
      playing: !paused,
      rate: this.#room.playback.rate,
      driftMs: this.drift,
      buffering: expected && !ended && stuck,
      telling: this.#placed && !stuck && !this.#controls.busy && paused !== playing,
    };
  }

  /** @param {number} drift */
  #setDrift(drift) {
    this.drift = drift;
    this.#emit('drift', { drift, mode: this.mode, rate: this.#rate });
  }

  /** @param {Mode} mode */
  #setMode(mode) {
    if (this.mode === mode) return;
    this.mode = mode;
    if (mode === 'waiting' || mode === 'seek') this.drift = null;
    this.#emit('mode', mode);
  }

  /**
   * @param {string} type
   * @param {any} detail
   */
  #emit(type, detail) {
    for (const fn of this.#listeners.get(type) ?? []) fn(detail);
  }
}
