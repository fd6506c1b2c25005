/**
 * Keeps a media element where the room is: puts the parts together, decides when to look (events of the room and of the
 * element, a timer), and tells the page and the room how the player does. What a look does is in steering.js.
 *
 * @typedef {object} SyncOptions
 * @property {boolean} [manageSource]  load the room's URL into the element (default true)
 * @property {string|null} [crossOrigin]  for that; left alone when absent: asking for CORS breaks hosts that have none
 * @property {boolean} [mediaSession]  answer media keys and the picture-in-picture window with commands (default true)
 */
import { Condition } from './condition.js';
import { Emitter } from './emitter.js';
import { HumanInput } from './human.js';
import { MediaSessionControls } from './media-session.js';
import { DriftMeter } from './meter.js';
import { NativeControls } from './native-controls.js';
import { LOOK_HIDDEN_MS, LOOK_MS, LOOK_PAUSED_MS } from './pace.js';
import { Player } from './player.js';
import { Reporter } from './report.js';
import { SourceLoader } from './source.js';
import { Steering } from './steering.js';
import { FollowedVector } from './vector.js';

/** A host farther from the room than this (ms) is no reference: what is wrong with its player concerns nobody else. */
const REFERENCE_WITHIN_MS = 200;
/** Own commands: once one is sent, the human action that led to it is used up. */
const COMMANDS = new Set(['PLAY_PAUSE', 'SEEK', 'SET_RATE', 'URL_CHANGE']);

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
  #condition;
  #steering;
  #human;
  #mediaSession;
  #emitter = new Emitter();
  /** @type {(() => void)[]} */
  #undo = [];

  /** @type {any} */
  #timer = null;
  #stopped = false;

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
    const emit = (/** @type {string} */ type, /** @type {any} */ detail) => this.#emitter.emit(type, detail);
    this.#player = new Player(video, room.env, emit);
    this.#meter = new DriftMeter(video, room.env, (local) => this.#vector.positionAt(room.clock.roomTime(local)));
    this.#source = new SourceLoader(room, video, options);
    this.#condition = new Condition(room, video, this.#player, this.#source, emit);
    this.#steering = new Steering({
      room, video, player: this.#player, meter: this.#meter, source: this.#source, vector: this.#vector, condition: this.#condition, emit,
    });
    this.#human = new HumanInput(video, room.env);
    const denied = (/** @type {{action: string, code: string}} */ detail) => emit('denied', detail);
    this.#controls = new NativeControls(room, video, this.#human, {
      wantsPlaying: () => this.#player.wantsPlaying,
      seeksTo: (position) => this.#player.seeksTo(position),
      rate: () => this.#player.rate,
      placed: () => this.#steering.placed,
      live: () => this.#condition.live.detected,
      holdStill: () => this.#steering.pause(),
      follow: () => this.#then(() => this.#steering.follow()),
      interrupted: () => this.#then(() => this.#onInterruption()),
      hopped: () => this.#then(() => this.#steering.noteHop()),
      rateForced: () => this.#then(() => this.#steering.noteForcedRate()),
      denied,
    });
    this.#mediaSession = options.mediaSession === false ? null : new MediaSessionControls(room, room.env.mediaSession, denied);
    this.#reporter = new Reporter(room, () => this.#reading());
    this.#listen();
    this.#look();
  }

  /** ms, latest; positive when this player is ahead; null while it can't be told. */
  get drift() {
    return this.#steering.drift;
  }

  get mode() {
    return this.#steering.mode;
  }

  stats() {
    return {
      ...this.#steering.stats.summary(),
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
   * `drift` {drift, mode, rate} · `mode` · `denied` {action, code} · `autoplay-blocked` {muted} (true: it plays,
   * without sound) · `media-error` {message} · `player` {state, reason?, duration?}: whether it can play the film ·
   * `limit` {reason, drift}: why it can't be kept in step, or null: now it can
   * @param {string} type
   * @param {(detail: any) => void} fn
   * @returns {() => void} stops it
   */
  on(type, fn) {
    return this.#emitter.on(type, fn);
  }

  /** Whether this player can play the room's film. */
  get player() {
    return this.#condition.status;
  }

  /** Why this player can't be kept in step at the moment. */
  get limit() {
    return this.#condition.limit;
  }

  /**
   * Loads the film again, after an error.
   * @returns {boolean} false when loading is the page's (`manageSource: false`)
   */
  retry() {
    const retried = this.#source.retry();
    this.#look();
    return retried;
  }

  /** After `autoplay-blocked` or the limit `paused`, from a click: plays, with the sound that the page wants. */
  resume({ muted = false } = {}) {
    this.#player.blocked = false;
    this.#condition.interruption.forget();
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
    this.#human.stop();
    this.#mediaSession?.stop();
    this.#source.stop();
    this.#condition.stop();
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
    onRoom('playback', () => this.#then(() => this.#onPlayback()));
    onRoom('change', () => this.#look());
    // In a background tab timers come once a second or less; what the network brings still comes at once.
    onRoom('tick', () => this.#env.hidden() && this.#look());
    onRoom('message', ({ detail }) => {
      if (detail.direction === 'out' && COMMANDS.has(detail.message.type)) this.#human.spend();
    });
    for (const type of ['seeked', 'canplay', 'playing', 'timeupdate', 'ended', 'loadedmetadata', 'durationchange']) {
      onVideo(type, () => this.#look());
    }
    for (const type of ['waiting', 'stalled', 'playing', 'canplay', 'seeked', 'pause']) {
      onVideo(type, () => this.#reporter.noticeBuffering());
    }
    onVideo('seeking', () => this.#player.noticeSeek());
    onVideo('waiting', () => this.#meter.clear());
    onVideo('emptied', () => this.#then(() => this.#onNewSource()));
    onVideo('error', () => this.#emitter.emit('media-error', { message: this.#video.error?.message ?? 'the media did not load' }));
    this.#undo.push(
      this.#env.onPage('visibilitychange', () => {
        if (!this.#env.hidden()) this.#condition.interruption.noteVisible();
        this.#look();
      }),
    );
  }

  #onPlayback() {
    this.#vector.follow(this.#room.playback, this.#room.clock.roomTime());
    this.#steering.noteCommand();
    this.#steering.follow();
  }

  #onNewSource() {
    this.#steering.forget();
    this.#controls.forget();
  }

  /** A pause that no person meant: it stays with this element. */
  #onInterruption() {
    this.#player.wantsPlaying = false;
    this.#condition.interruption.note(this.#env.now(), this.#env.hidden());
    this.#meter.clear();
  }

  /** @param {() => void} act */
  #then(act) {
    act();
    this.#look();
  }

  #look() {
    if (this.#stopped) return;
    this.#env.clearTimeout(this.#timer);
    const soon = this.#steering.step(this.#controls.busy);
    const pace = this.#env.hidden() ? LOOK_HIDDEN_MS : this.#video.paused ? LOOK_PAUSED_MS : LOOK_MS;
    this.#timer = this.#env.setTimeout(() => this.#look(), Math.max(0, Math.min(soon ?? pace, pace)));
  }

  /** @returns {import('./report.js').Reading} */
  #reading() {
    const { currentTime, paused, ended } = this.#video;
    const { playing } = this.#room.playback;
    const expected = playing || this.#room.gate !== null;
    const { stuck } = this.#player;
    const { isHost } = this.#room.self;
    const reference = !isHost || (this.limit === null && Math.abs(this.drift ?? 0) < REFERENCE_WITHIN_MS);
    return {
      position: currentTime,
      playing: !paused,
      rate: this.#room.playback.rate,
      driftMs: this.drift,
      buffering: expected && !ended && stuck,
      telling: this.#steering.placed && !stuck && !this.#controls.busy && paused !== playing && !this.#condition.live.detected && reference,
    };
  }
}
