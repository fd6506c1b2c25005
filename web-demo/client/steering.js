/**
 * Steers a media element to where the room is. One function, `step`, looks at the room and at the element and does the
 * next thing. There is no plan to go stale: a start that came too late, a seek that took too long, a command that
 * arrived meanwhile are all handled by the next look.
 *
 * @typedef {'idle'|'rate'|'seek'|'waiting'} Mode
 *   in step (playing or paused) · correcting by rate · jumping · for data, the clock, the gate, the start
 *
 * @typedef {object} SteeringParts
 * @property {import('./room.js').Room} room
 * @property {HTMLVideoElement} video
 * @property {import('./player.js').Player} player
 * @property {import('./meter.js').DriftMeter} meter
 * @property {import('./source.js').SourceLoader} source
 * @property {import('./vector.js').FollowedVector} vector
 * @property {import('./condition.js').Condition} condition
 * @property {(type: string, detail: any) => void} emit
 */
import { RateController } from './drift.js';
import { JumpLimiter } from './jumps.js';
import { EXACT_S } from './landing.js';
import { LOOK_HIDDEN_MS, LOOK_MEASURING_MS, LOOK_MS } from './pace.js';
import { SyncStats } from './sync-stats.js';

/** Readings of the first moments after a start are of no use. */
const START_SETTLES_MS = 120;
/** A start this much behind is left to the rate; more is worth a seek ahead. */
const START_BEHIND_MS = 120;
/**
 * The same for a player that stands where the room starts, and heard of it late (a lost packet): a seek would stop it
 * for longer, and what is less is not jumped after (`JumpLimiter`).
 */
const START_HEARD_LATE_MS = 200;
/** A jump from farther behind is that of a device that can't keep up, unless it doesn't have the room's rate. */
const FELL_BEHIND_MS = 250;
/** A player that stands this little ahead waits for the room instead of seeking back. */
const WAIT_AHEAD_MS = 1500;
/** The same where a seek back would not help: over a hole in the film, or where seeks land elsewhere. */
const WAIT_LONG_AHEAD_MS = 15_000;
/** A player farther off than this that can't seek either plays on as it is. */
const OUT_OF_REACH_MS = 15_000;
/** A seek for an earlier state of the room is given up when room and player are this far apart, s. */
const SEEK_ELSEWHERE_S = 3;
/** A player that stands this close to its aim (a quarter of a frame) needs no seek. */
const SAME_PLACE_S = 0.01;
/**
 * A new rate is heard only when what the audio pipeline holds has been played: 65 to 140 ms in Chromium (measured). The
 * room's changes of rate are known ahead, and asked for this much earlier.
 */
const RATE_TAKES_MS = 100;
/** After so many seeks ahead that all came too late, a player starts where it is. */
const MOST_START_TRIES = 3;

export class Steering {
  #room;
  #video;
  #env;
  #player;
  #meter;
  #source;
  #vector;
  #condition;
  #emit;
  #landing;
  #effect;
  #interruption;
  #live;
  #controller = new RateController();
  #jumps = new JumpLimiter();
  stats = new SyncStats();

  /** Whether this source has been put to its place; before that, nothing that the element does is a viewer's action. */
  placed = false;
  /** @type {number|null} where a pause has put the element */
  #heldAt = null;
  #holdTries = 0;
  /** The room's vector that the last seek was for. @type {object|null} */
  #soughtFor = null;
  /** Most likely an engine moved the element over a hole in the film: a seek back would only land there again. */
  #hopped = false;
  /**
   * The start that is still to be learned from: the drift that it was ordered with (negative: too late), and the
   * latency that was counted on.
   * @type {{drift: number, latency: import('./drift.js').Latency}|null}
   */
  #begun = null;
  /** The room's rate that the player was last set to, corrections aside. @type {number|null} */
  #baseRate = null;
  #startTries = 0;
  /** @type {number|null} id of the gate that was answered */
  #readyFor = null;

  /** @type {number|null} ms, latest; positive when this player is ahead */
  drift = null;
  /** @type {Mode} */
  mode = 'waiting';

  /** @param {SteeringParts} parts */
  constructor({ room, video, player, meter, source, vector, condition, emit }) {
    this.#room = room;
    this.#video = video;
    this.#env = room.env;
    this.#player = player;
    this.#meter = meter;
    this.#source = source;
    this.#vector = vector;
    this.#condition = condition;
    this.#emit = emit;
    ({ landing: this.#landing, rates: this.#effect, interruption: this.#interruption, live: this.#live } = condition);
  }

  /**
   * The room has a new playback vector, or the element is not where it was: go to where the room is, without cooldowns.
   */
  follow() {
    this.#player.wantsPlaying = !this.#video.paused;
    this.#meter.clear();
    this.#controller.reset();
    this.#effect.clear();
    this.#jumps.forgive();
    this.#interruption.forget();
    this.#heldAt = null;
  }

  /** A command gives a new number of attempts to start on time. */
  noteCommand() {
    this.#startTries = 0;
  }

  /** Another source: nothing that was learned of the element's place holds. */
  forget() {
    this.placed = false;
    this.#heldAt = null;
    this.#baseRate = null;
    this.#startTries = 0;
    this.#hopped = false;
    this.#player.forget();
    this.#condition.forget();
    this.#meter.clear();
  }

  /** An engine has moved the element over a hole in the film. */
  noteHop() {
    this.#hopped = true;
    this.#meter.clear();
    this.#effect.clear();
  }

  /** Something else has set the element's rate. */
  noteForcedRate() {
    const again = this.#effect.noteForced(this.#env.now());
    this.#player.noticeRate();
    this.#meter.setSlip(this.#player.rate - this.#vector.rateAt(this.#room.clock.roomTime()));
    if (again) this.#baseRate = null;
  }

  /**
   * Looks at the room and at the element, and does the next thing.
   * @param {boolean} busy  a person is dragging the element's own controls
   * @returns {number|void} ms after which to look again, when that is sooner than usual
   */
  step(busy) {
    const room = this.#room;
    // Not in the room yet: nothing is known of it. The audience has no slot.
    if (room.state === 'closed' || (room.self.slot === null && room.role !== 'audience')) return;
    const retryIn = this.#source.follow();
    const runs = room.playback.playing && this.#vector.runsAt(room.clock.roomTime());
    this.#condition.look(this.drift, busy, runs && this.placed);
    if (busy) return;
    if (!this.#player.usable) {
      this.#setMode('waiting');
      return retryIn;
    }
    if (this.#live.detected) return this.#accompany();
    if (!room.clock.synced && !this.placed) return this.#setMode('waiting');

    const gate = this.#awaitedGate();
    if (gate) return this.#prepare(gate);
    return room.playback.playing ? this.#play() : this.#hold(room.playback.position);
  }

  /** A live stream plays and pauses with the room, and stays where its own player puts it. */
  #accompany() {
    this.placed = true;
    this.drift = null;
    this.#setMode('idle');
    const { paused } = this.#video;
    if (paused === this.#player.wantsPlaying) return; // Touched, and the event is on its way.
    const { playing } = this.#room.playback;
    if (!playing && !paused) this.pause();
    if (playing && paused && !this.#player.blocked && this.#interruption.left(this.#env.now()) === 0) void this.#player.play();
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
    if (this.#readyFor === gate.id || !this.#standsAt(gate.targetTime) || !this.#player.hasData) return;
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
    if (this.placed && this.#touched) return;
    if (!video.paused && !video.ended) {
      const left = this.#untilPause(target);
      if (left > 0) return left;
      this.pause();
    }
    if (this.#heldAt !== target) {
      this.#heldAt = target;
      this.#holdTries = 0;
    }
    if (this.#misses(target)) {
      this.#holdTries += 1;
      this.#seekTo(target);
    }
    this.#player.noticeSeekEnd();
    this.placed = true;
    this.#setDrift((video.currentTime - target) * 1000);
    this.#setMode(video.seeking ? 'seek' : 'idle');
  }

  /**
   * @param {number} from
   * @param {number} to
   */
  #seekHelps(from, to) {
    return this.#player.canSeekTo(to) && this.#landing.helps(to - from, this.#player.hasBuffered(to));
  }

  /**
   * Whether standing still at a position takes a seek. What it lands on after as many tries as this source is worth is
   * taken.
   * @param {number} target
   */
  #misses(target) {
    const gap = Math.abs(this.#video.currentTime - target);
    if (!this.#player.canSeekTo(target)) return false;
    if (this.#holdTries === 0) {
      if (!this.#landing.inexact) return gap > SAME_PLACE_S;
      return gap > Math.max(EXACT_S, this.#landing.worst) || this.#seekHelps(this.#video.currentTime, target);
    }
    return !this.#video.seeking && gap > EXACT_S && this.#holdTries < this.#landing.tries;
  }

  /** Whether it stands where a pause wants it, or as near as this source's seeks come. @param {number} position */
  #standsAt(position) {
    const target = this.#player.clamp(position);
    return this.#heldAt === target && !this.#video.seeking && this.#player.seekTarget === null && !this.#misses(target);
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
    if (this.#video.paused && this.#interruption.left(this.#env.now()) > 0) {
      this.#setMode('waiting');
      return this.#interruption.left(this.#env.now());
    }
    if (this.#video.paused) return this.#start(now);
    if (!this.#vector.runsAt(now + this.#player.longestStart + 50)) {
      // A start that is scheduled: stand where it begins. (One that is about to happen may have been begun already.)
      this.pause();
      return this.#start(now);
    }
    // The element plays, whatever started it: a pause from here on is a new action.
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
    if (this.#video.seeking) {
      // Its data may never come: when the room has gone elsewhere, so does the player.
      const elsewhere = Math.abs(this.#vector.positionAt(now) - this.#video.currentTime) > SEEK_ELSEWHERE_S;
      if (elsewhere && this.#soughtFor !== this.#vector.current) return this.#seekAhead(now);
      return this.#setMode('seek');
    }

    const { at, position } = this.#vector.current;
    const here = this.#video.currentTime;
    const lead = this.#player.startLatency.ms;
    const wait = Math.max(this.#vector.reaches(here), at) - now - lead;
    const stands = Math.abs(here - position) <= SAME_PLACE_S * 2;
    const late = wait < -(stands ? START_HEARD_LATE_MS : START_BEHIND_MS);
    const early = wait > Math.max(this.#hopped ? WAIT_LONG_AHEAD_MS : WAIT_AHEAD_MS, at - now - lead + 50);
    const elsewhere = here < position - SAME_PLACE_S * 2 || late || early;
    const helps = this.#seekHelps(here, this.#vector.positionAt(Math.max(now, at)));
    if (elsewhere && helps && this.#startTries < MOST_START_TRIES) return this.#seekAhead(now);

    this.placed = true;
    this.#setMode('waiting');
    if (!this.#player.hasData) return;
    if (wait > 1 && wait < Math.max(WAIT_LONG_AHEAD_MS, at - now)) return wait;
    this.#begin(wait);
  }

  /** @param {number} now */
  #seekAhead(now) {
    const { seekLatency, freshLatency } = this.#player;
    const lead = seekLatency.ms * 1.2 + freshLatency.ms + 30;
    const arrival = Math.max(this.#vector.current.at, now + lead);
    this.#startTries += 1;
    this.placed = true;
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
    this.#hopped = false;
    this.#meter.clear(START_SETTLES_MS);
    this.#controller.reset();
    this.#effect.clear();
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
      this.#effect.clear(); // What a stall costs says nothing about rates.
      return this.#setMode(this.#video.seeking ? 'seek' : 'waiting');
    }
    const base = this.#followRate(now);
    const reading = this.#meter.read();
    if (reading === null) return Math.min(LOOK_MEASURING_MS, this.#untilRateChange(now));
    const { drift, noise } = reading;

    this.#setDrift(drift);
    this.#learnStart(drift);
    const local = this.#env.now();
    const ratesHelp = !this.#effect.useless(local);
    const position = this.#vector.positionAt(now);
    const seeksHelp = this.#seekHelps(position + drift / 1000, position);
    if (seeksHelp && this.#jumps.allows(drift, local, ratesHelp)) {
      const tookRate = this.#player.rate > base - 0.01;
      if (drift < -FELL_BEHIND_MS && tookRate) this.#condition.lag.noteJump(local);
      return this.#jump(ratesHelp);
    }

    if (ratesHelp) {
      const interval = this.#env.hidden() ? LOOK_HIDDEN_MS : LOOK_MS;
      const reachable = seeksHelp || Math.abs(drift) < OUT_OF_REACH_MS;
      const deviation = reachable ? this.#controller.deviation(drift, noise, interval) : 0;
      if (!this.#setRate(base * (1 + deviation))) this.#effect.noteRefused(local);
      this.#effect.observe(local, drift, this.#player.rate - base);
    }
    // An element that rounded or ignored the correction goes back to the room's rate; one that something else holds is
    // left alone.
    if (this.#effect.useless(local) && !this.#effect.forced) this.#setRate(base);
    this.#setMode(ratesHelp && this.#controller.correcting ? 'rate' : 'idle');
    this.stats.add(drift);
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
    this.#effect.clear();
    this.#meter.clear(RATE_TAKES_MS * 2);
    return base;
  }

  /** @param {number} now */
  #untilRateChange(now) {
    const left = this.#vector.current.at - RATE_TAKES_MS - now;
    return left > 0 ? left : Infinity;
  }

  /**
   * Corrects the start latency by how far the start missed its aim. The part by which the start was ordered too late is
   * taken off.
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
   * @param {boolean} ratesHelp
   * @returns {number|void}
   */
  #jump(ratesHelp) {
    this.#jumps.noteJump(this.#env.now(), ratesHelp);
    this.#startTries = 0;
    this.stats.jumps += 1;
    this.pause();
    return this.#start(this.#room.clock.roomTime());
  }

  pause() {
    this.#player.pause();
    this.#meter.clear();
    this.#controller.reset();
    this.#effect.clear();
  }

  /** @param {number} target */
  #seekTo(target) {
    this.#soughtFor = this.#vector.current;
    this.#player.seekTo(target);
    this.#meter.clear();
  }

  /** @param {number} rate @returns {boolean} whether the element took it */
  #setRate(rate) {
    const taken = this.#player.setRate(rate);
    this.#meter.setSlip(this.#player.rate - this.#vector.rateAt(this.#room.clock.roomTime()));
    return taken;
  }

  /** @param {number} drift */
  #setDrift(drift) {
    this.drift = drift;
    this.#emit('drift', { drift, mode: this.mode, rate: this.#player.rate });
  }

  /** @param {Mode} mode */
  #setMode(mode) {
    if (this.mode === mode) return;
    this.mode = mode;
    if (mode === 'waiting' || mode === 'seek') this.drift = null;
    this.#emit('mode', mode);
  }
}
