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
import { RateController } from './drift.js';
import { Emitter } from './emitter.js';
import { JumpLimiter } from './jumps.js';
import { DriftMeter } from './meter.js';
import { NativeControls } from './native-controls.js';
import { Player } from './player.js';
import { Reporter } from './report.js';
import { SourceLoader } from './source.js';
import { SyncStats } from './sync-stats.js';
import { FollowedVector } from './vector.js';

const LOOK_MS = 100;
const LOOK_PAUSED_MS = 250;
const LOOK_HIDDEN_MS = 1000;
const LOOK_MEASURING_MS = 25;

/** For so long after a start readings mean nothing. */
const START_SETTLES_MS = 120;
/** A start this much behind is left to the rate; more is worth a seek ahead. */
const START_BEHIND_MS = 120;
/** A player that stands this little ahead waits for the room instead of seeking back. */
const WAIT_AHEAD_MS = 1500;
/** Standing this close to where a pause or a start wants it, it is not worth a seek: a quarter of a frame. */
const SAME_PLACE_S = 0.01;
/**
 * A new rate is heard only when what the audio pipeline holds has been played: 65 to 140 ms in Chromium (measured). The
 * room's changes of rate are known ahead, and asked for this much earlier.
 */
const RATE_TAKES_MS = 100;
/** After so many seeks ahead that all came too late, it starts where it is. */
const MOST_START_TRIES = 3;

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
  #player;
  #meter;
  #source;
  #controls;
  #reporter;
  #vector;
  #controller = new RateController();
  #stats = new SyncStats();
  #jumps = new JumpLimiter();
  #emitter = new Emitter();
  /** @type {(() => void)[]} */
  #undo = [];

  /** Whether this source has been put to its place yet; before, nothing that it does is the viewer's doing. */
  #placed = false;
  /** @type {number|null} where a pause has put the element */
  #heldAt = null;
  /**
   * The start that is still to be learned from: the drift that it was ordered with (negative: too late), and the latency
   * that was counted on.
   * @type {{drift: number, latency: import('./drift.js').Latency}|null}
   */
  #begun = null;
  /** The room's rate that the player was last set to, corrections aside. @type {number|null} */
  #baseRate = null;
  #startTries = 0;
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
    this.#player = new Player(video, room.env, (type, detail) => this.#emitter.emit(type, detail));
    this.#meter = new DriftMeter(video, room.env, (local) => this.#vector.positionAt(room.clock.roomTime(local)));
    this.#source = new SourceLoader(room, video, options);
    this.#controls = new NativeControls(room, video, {
      wantsPlaying: () => this.#player.wantsPlaying,
      seekTarget: () => this.#player.seekTarget,
      rate: () => this.#player.rate,
      placed: () => this.#placed,
      holdStill: () => this.#pause(),
      look: () => this.#look(),
      follow: () => this.#follow(),
      denied: (detail) => this.#emitter.emit('denied', detail),
    });
    this.#reporter = new Reporter(room, () => this.#reading());
    this.#listen();
    this.#look();
  }

  stats() {
    return {
      ...this.#stats.summary(),
      mode: this.mode,
      drift: this.drift,
      rate: this.#player.rate,
      source: this.#meter.source,
      seekLatencyMs: this.#player.seekLatency.ms,
      startLatencyMs: this.#player.freshLatency.ms,
      resumeLatencyMs: this.#player.resumeLatency.ms,
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
    return this.#emitter.on(type, fn);
  }

  /** After `autoplay-blocked`, from a click: plays, with the sound that the page wants. */
  resume({ muted = false } = {}) {
    this.#player.blocked = false;
    this.#video.muted = muted;
    this.#look();
  }

  stop() {
    if (this.#stopped) return;
    this.#stopped = true;
    this.#env.clearTimeout(this.#timer);
    this.#undo.forEach((undo) => undo());
    this.#meter.stop();
    this.#controls.stop();
    this.#reporter.stop();
    this.#player.setRate(this.#room.playback.rate);
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
    onVideo('seeking', () => this.#player.noticeSeek());
    onVideo('waiting', () => this.#meter.clear());
    onVideo('emptied', () => this.#onNewSource());
    onVideo('error', () => this.#emitter.emit('media-error', { message: this.#video.error?.message ?? 'the media did not load' }));
    this.#undo.push(this.#env.onPage('visibilitychange', () => this.#look()));
  }

  #onPlayback() {
    this.#vector.follow(this.#room.playback, this.#room.clock.roomTime());
    this.#startTries = 0;
    this.#follow();
  }

  #onNewSource() {
    this.#placed = false;
    this.#heldAt = null;
    this.#baseRate = null;
    this.#startTries = 0;
    this.#player.forget();
    this.#meter.clear();
  }

  /** The element is not where it was: go to where the room is, without regard to cooldowns. */
  #follow() {
    this.#player.wantsPlaying = !this.#video.paused;
    this.#meter.clear();
    this.#controller.reset();
    this.#jumps.forgive();
    this.#heldAt = null;
    this.#look();
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
    if (room.self.slot === null) return; // Not in the room yet: nothing is known of it.
    this.#source.follow();
    if (!room.clock.synced && !this.#placed) return this.#setMode('waiting');
    if (!this.#player.usable) return this.#setMode('waiting');

    const gate = this.#awaitedGate();
    if (gate) return this.#prepare(gate);
    return room.playback.playing ? this.#play() : this.#hold(room.playback.position);
  }

  /**
   * Somebody else has paused it, or let it play, and the event that says so is still on its way (browsers send a
   * `timeupdate` first): to undo it now would be to overlook it.
   */
  get #touched() {
    return this.#video.paused === this.#player.wantsPlaying && !this.#video.ended;
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
    if (this.#readyFor === gate.id || !this.#player.isAt(gate.targetTime) || !this.#player.hasData) return;
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
    const target = this.#player.clamp(position);
    const video = this.#video;
    if (this.#placed && this.#touched) return;
    if (!video.paused && !video.ended) {
      const left = this.#untilPause(target);
      if (left > 0) return left;
      this.#pause();
    }
    if (this.#heldAt !== target) {
      this.#heldAt = target;
      if (Math.abs(video.currentTime - target) > SAME_PLACE_S) this.#seekTo(target);
    }
    this.#player.noticeSeekEnd();
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
    if (this.#touched && this.#video.paused) return;
    if (this.#video.paused) return this.#start(now);
    if (!this.#vector.runsAt(now + this.#player.longestStart + 50)) {
      // A start that is scheduled: stand where it begins. (One that is about to happen may have been begun already.)
      this.#pause();
      return this.#start(now);
    }
    // Whoever pressed play, it plays: from here on a pause is a new act.
    this.#player.wantsPlaying = true;
    this.#player.blocked = false;
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
    if (this.#player.blocked) return this.#setMode('waiting');
    this.#player.noticeSeekEnd();
    if (this.#video.seeking) return this.#setMode('seek');

    const { at, position } = this.#vector.current;
    const here = this.#video.currentTime;
    const lead = this.#player.startLatency.ms;
    const wait = Math.max(this.#vector.reaches(here), at) - now - lead;
    const late = wait < -START_BEHIND_MS && this.#startTries < MOST_START_TRIES;
    const early = wait > Math.max(WAIT_AHEAD_MS, at - now - lead + 50);
    if (here < position - SAME_PLACE_S * 2 || late || early) return this.#seekAhead(now);

    this.#placed = true;
    this.#setMode('waiting');
    if (!this.#player.hasData) return;
    if (wait > 1) return wait;
    this.#begin(wait);
  }

  /** @param {number} now */
  #seekAhead(now) {
    const { seekLatency, freshLatency } = this.#player;
    const lead = seekLatency.ms * 1.2 + freshLatency.ms + 30;
    const arrival = Math.max(this.#vector.current.at, now + lead);
    this.#startTries += 1;
    this.#placed = true;
    this.#setMode('seek');
    this.#seekTo(this.#player.clamp(this.#vector.positionAt(arrival)));
  }

  /** @param {number} wait ms until it should begin; negative: so much too late */
  #begin(wait) {
    this.#baseRate = this.#vector.current.rate;
    this.#setRate(this.#baseRate);
    this.#jumps.noteStart(this.#env.now());
    const { startLatency: latency } = this.#player;
    this.#begun = this.#env.hidden() ? null : { drift: wait * this.#baseRate, latency };
    this.#startTries = 0;
    this.#meter.clear(START_SETTLES_MS);
    this.#controller.reset();
    this.#player.play();
  }

  /**
   * Playing: measure, and correct.
   * @param {number} now
   * @returns {number|void}
   */
  #correct(now) {
    this.#player.noticeSeekEnd();
    if (this.#player.stuck) {
      this.#meter.clear();
      return this.#setMode(this.#video.seeking ? 'seek' : 'waiting');
    }
    const base = this.#followRate(now);
    const reading = this.#meter.read();
    if (reading === null) return Math.min(LOOK_MEASURING_MS, this.#untilRateChange(now));
    const { drift, noise } = reading;

    this.#setDrift(drift);
    this.#learnStart(drift);
    if (this.#jumps.allows(drift, this.#env.now())) return this.#jump();

    const interval = this.#env.hidden() ? LOOK_HIDDEN_MS : LOOK_MS;
    this.#setRate(base * (1 + this.#controller.deviation(drift, noise, interval)));
    this.#setMode(this.#controller.correcting ? 'rate' : 'idle');
    this.#stats.add(drift);
    return this.#untilRateChange(now);
  }

  /**
   * The room's own rate, asked for ahead of time.
   * @param {number} now
   */
  #followRate(now) {
    const base = this.#vector.rateAt(now + RATE_TAKES_MS);
    if (base === this.#baseRate) return base;
    this.#baseRate = base;
    this.#setRate(base);
    this.#controller.reset();
    this.#meter.clear(RATE_TAKES_MS * 2);
    return base;
  }

  /** @param {number} now */
  #untilRateChange(now) {
    const left = this.#vector.current.at - RATE_TAKES_MS - now;
    return left > 0 ? left : Infinity;
  }

  /**
   * What is left of a start's aim is the best measure of how long starting takes here. A start that was ordered too late
   * to be on time says nothing by that part.
   * @param {number} drift
   */
  #learnStart(drift) {
    if (this.#begun === null) return;
    const { drift: expected, latency } = this.#begun;
    this.#begun = null;
    const missed = drift - expected;
    if (Math.abs(missed) < 250) latency.nudge(-0.6 * missed);
  }

  /**
   * Stop, and let `#start` find the way back in.
   * @returns {number|void}
   */
  #jump() {
    this.#jumps.noteJump(this.#env.now());
    this.#startTries = 0;
    this.#stats.jumps += 1;
    this.#pause();
    return this.#start(this.#room.clock.roomTime());
  }

  #pause() {
    this.#player.pause();
    this.#meter.clear();
    this.#controller.reset();
  }

  /** @param {number} target */
  #seekTo(target) {
    this.#player.seekTo(target);
    this.#meter.clear();
  }

  /** @param {number} rate */
  #setRate(rate) {
    this.#player.setRate(rate);
    this.#meter.setSlip(this.#player.rate - this.#vector.rateAt(this.#room.clock.roomTime()));
  }

  /** @returns {import('./report.js').Reading} */
  #reading() {
    const { currentTime, paused, ended } = this.#video;
    const { playing } = this.#room.playback;
    const expected = playing || this.#room.gate !== null;
    const { stuck } = this.#player;
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
    this.#emitter.emit('drift', { drift, mode: this.mode, rate: this.#player.rate });
  }

  /** @param {Mode} mode */
  #setMode(mode) {
    if (this.mode === mode) return;
    this.mode = mode;
    if (mode === 'waiting' || mode === 'seek') this.drift = null;
    this.#emitter.emit('mode', mode);
  }
}
