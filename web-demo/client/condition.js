/**
 * Watches a player's condition: whether it can play the room's film at all, whether it keeps up with it, and why it
 * can't be kept in step. Checked before each step of syncVideo. The room is told by PLAYER, the page by `player` and
 * `limit`.
 *
 * @typedef {'live'|'paused'|'seek'|'rate'|import('./lag.js').LagReason} Limit
 *   why this player can't be kept in step: it shows a live stream · the browser keeps it paused · its seeks land
 *   elsewhere · it ignores rates, and a jump is not due yet · its data comes too slowly · the device is too slow
 */
import { Interruption } from './interruption.js';
import { Lag } from './lag.js';
import { Landing } from './landing.js';
import { LiveDetector } from './live.js';
import { PlayerStatus, statusOf } from './player-status.js';
import { RateEffect } from './rate-effect.js';

/** Drift from which on a limit is reported, ms. */
const LIMIT_ABOVE_MS = { seek: 1000, rate: 100 };
/** A seek that takes longer waits for data. */
const SEEK_STARVES_MS = 5000;
/**
 * A seek that hangs for so long although its data is buffered is ended by loading the film again, at most this often.
 */
const HANGS_MS = 6000;
const FREE_EVERY_MS = 20_000;

export class Condition {
  #room;
  #video;
  #player;
  #source;
  #emit;
  #status;
  /** The element was to repeat its film, which would leave the room by itself. */
  #looped = false;
  #freedAt = -Infinity;

  landing = new Landing();
  rates = new RateEffect();
  interruption = new Interruption();
  lag = new Lag();
  live;
  /** @type {Limit|null} */
  limit = null;

  /**
   * @param {import('./room.js').Room} room
   * @param {HTMLVideoElement} video
   * @param {import('./player.js').Player} player
   * @param {import('./source.js').SourceLoader} source
   * @param {(type: string, detail: any) => void} emit
   */
  constructor(room, video, player, source, emit) {
    this.#room = room;
    this.#video = video;
    this.#player = player;
    this.#source = source;
    this.#emit = emit;
    this.live = new LiveDetector(video);
    this.#status = new PlayerStatus(room, (status) => emit('player', status));
  }

  /** Whether this player can play the room's film. */
  get status() {
    return this.#status.current;
  }

  /**
   * @param {number|null} drift ms
   * @param {boolean} inHand whether the viewer's hand is on the element
   * @param {boolean} runs  whether the room's film moves now
   */
  look(drift, inHand, runs) {
    const now = this.#room.env.now();
    const video = this.#video;
    if (video.loop) {
      video.loop = false;
      this.#looped = true;
    }
    this.live.look(now);
    const landed = this.#player.takeLanding();
    // Playing on, or the viewer, may have moved the element since its seek landed.
    if (landed !== null && video.paused && !inHand) this.landing.learn(landed.error, landed.buffered);
    if (this.#player.hangsFor > HANGS_MS && now - this.#freedAt > FREE_EVERY_MS) {
      this.#freedAt = now;
      this.#source.retry();
    }
    this.lag.look(now, {
      running: runs && !video.ended && !inHand && this.#player.usable && !this.#player.blocked && this.interruption.left(now) === 0,
      starving: this.#player.stuck && (!video.seeking || this.#player.seekingFor > SEEK_STARVES_MS),
      shown: !this.#room.env.hidden(),
      frames: video.getVideoPlaybackQuality?.(),
    });
    this.#status.update(
      statusOf(video, {
        lag: this.lag.current,
        failure: this.#source.failure,
        blocked: this.#player.blocked,
        live: this.live.detected,
        lengthSettled: this.live.lengthSettled(now),
        expected: this.#room.url !== null && this.#source.managed,
      }),
    );
    this.#setLimit(this.#limitAt(now, Math.abs(drift ?? 0)), drift);
  }

  /** Called for another source. */
  forget() {
    this.landing.forget();
    this.rates.forget();
    this.live.forget();
    this.interruption.forget();
    this.lag.forget();
  }

  stop() {
    this.#status.stop();
    if (this.#looped) this.#video.loop = true;
  }

  /**
   * @param {number} now
   * @param {number} off ms
   * @returns {Limit|null}
   */
  #limitAt(now, off) {
    if (this.live.detected) return 'live';
    if (this.interruption.lasting && this.#room.playback.playing) return 'paused';
    if (this.lag.current !== null) return this.lag.current;
    if ((this.landing.inexact || !this.#player.canSeekTo(this.#video.currentTime)) && off > LIMIT_ABOVE_MS.seek) return 'seek';
    return this.rates.useless(now) && off > LIMIT_ABOVE_MS.rate ? 'rate' : null;
  }

  /**
   * @param {Limit|null} limit
   * @param {number|null} drift
   */
  #setLimit(limit, drift) {
    if (limit === this.limit) return;
    this.limit = limit;
    this.#emit('limit', { reason: limit, drift });
  }
}
