/**
 * Room time on this page's steady clock. The server stamps each probe on arrival and departure; the exchange with the
 * smallest round trip among recent ones bounds the offset best (its error is at most half of its round trip).
 */
import { encodeProbe } from './wire.js';

const WINDOW = 16;

/** Error that a sample gains by each ms of age: two quartz clocks part by up to 50 ppm, doubled for safety. */
const AGE_PENALTY = 0.0001;

/** For rounding, and for stamps that a busy server took a moment late. */
const TOLERANCE_MS = 5;

/** Once synced, the offset is slewed: a film must not jump because an estimate got better. */
const SLEW_MS_PER_MS = 0.005;
const STEP_ABOVE_MS = 50;

const SAMPLES_TO_SYNC = 4;

/**
 * How coarse this page's clock is. Browsers round `performance.now()`, down to steps of 16.7 or 100 ms against
 * fingerprinting; all readings of such a clock are whole steps apart, so their greatest common divisor is the step.
 */
export class ClockGrain {
  #last = NaN;
  #step = 0;

  /** The step, ms; 0 while it is no coarser than the measurements are. */
  get ms() {
    return this.#step > FINE_MS ? this.#step : 0;
  }

  /** @param {number} now a reading of the clock, in order */
  add(now) {
    const moved = Math.abs(now - this.#last);
    this.#last = now;
    if (!(moved > FINE_MS) || this.#step === FINE_MS) return;
    this.#step = this.#step === 0 ? moved : commonDivisor(this.#step, moved);
  }
}

/** A clock whose steps are smaller is as good as continuous. */
const FINE_MS = 0.2;

/**
 * Of two measured numbers, within `FINE_MS`; `FINE_MS` when they have none above it.
 * @param {number} a
 * @param {number} b
 */
function commonDivisor(a, b) {
  while (b > FINE_MS) {
    const rest = a % b;
    // A whole multiple may be missed by a rounding.
    [a, b] = [b, b - rest < FINE_MS ? 0 : rest];
  }
  return a > FINE_MS * 2 ? a : FINE_MS;
}

/** The estimator: exchanges in, offset out. It owns no timer and reads no clock. */
export class OffsetEstimator {
  /** @type {{offset: number, rtt: number, at: number}[]} */
  #samples = [];
  #target = 0;
  #from = 0;
  #since = 0;
  #everSynced = false;

  rtt = Infinity;
  /**
   * Half of the best round trip, and what a coarse clock hides: room time can't be further off than this, but for drift
   * since.
   */
  error = Infinity;
  synced = false;

  /**
   * @param {number} t0 departure of the probe, on our clock
   * @param {number} t1 its arrival, in room time
   * @param {number} t2 departure of the reply, in room time
   * @param {number} t3 its arrival, on our clock
   * @param {number} [grain] of our clock, ms
   * @returns {boolean} whether the exchange was usable
   */
  add(t0, t1, t2, t3, grain = 0) {
    const trip = t3 - t0 - (t2 - t1);
    // A clock that moves in steps may show no time between departure and arrival.
    if (!(trip >= -grain) || t2 < t1) return false;
    const rtt = Math.max(0, trip);
    const offset = (t1 - t0 + (t2 - t3)) / 2;
    // An exchange bounds the offset. Older bounds that exclude it are those of a clock that was moved since.
    const agrees = (/** @type {{offset: number, rtt: number, at: number}} */ s) =>
      Math.abs(s.offset - offset) <= (s.rtt + rtt) / 2 + (t3 - s.at) * AGE_PENALTY + 2 * grain + TOLERANCE_MS;
    this.#samples = this.#samples.filter(agrees);
    this.#samples.push({ offset, rtt, at: t3 });
    if (this.#samples.length > WINDOW) this.#samples.shift();

    const cost = (/** @type {{rtt: number, at: number}} */ s) => s.rtt / 2 + (t3 - s.at) * AGE_PENALTY;
    const best = this.#samples.reduce((a, b) => (cost(b) <= cost(a) ? b : a));
    this.rtt = best.rtt;
    // t0, t3, the round trip and the reading that room time is asked for may each be off by a step: early, or late by
    // blur.
    this.error = cost(best) + 2 * grain;
    const before = this.offsetAt(t3);
    const gap = Math.abs(best.offset - before);
    // A step is for a clock that was moved, not for a line that got slow: while the old offset is within what the best
    // sample allows, there is no evidence against it.
    const step = !this.#everSynced || (gap > STEP_ABOVE_MS && gap > this.error);
    this.#from = step ? best.offset : before;
    this.#target = best.offset;
    this.#since = t3;
    this.synced ||= this.#samples.length >= SAMPLES_TO_SYNC;
    this.#everSynced ||= this.synced;
    return true;
  }

  /**
   * Room time minus our clock, at a moment of our clock.
   * @param {number} now
   */
  offsetAt(now) {
    const most = Math.max(0, now - this.#since) * SLEW_MS_PER_MS;
    return this.#from + Math.max(-most, Math.min(most, this.#target - this.#from));
  }

  /**
   * Forgets what was measured (the clock may have stood still), but keeps answering until there is something better.
   */
  restart() {
    this.#samples = [];
    this.synced = false;
  }
}

const BURST = 8;
const BURST_GAP_MS = 50;
const STEADY_GAP_MS = 1000;
const MOST_PENDING = 64;
const SLEPT_MS = 100;

/**
 * Keeps an estimator fed: a burst of probes to begin with, then one a second, and a new burst whenever the steady clock
 * may have stood still (a laptop that slept).
 */
export class RoomClock {
  #env;
  #send;
  #onSample;
  #onSlept;
  #estimator = new OffsetEstimator();
  #grain = new ClockGrain();
  /** @type {Map<number, number>} probe id → its t0 */
  #pending = new Map();
  #nextId = 0;
  #burstLeft = 0;
  /** @type {any} */
  #timer = null;
  #wallMinusSteady = 0;

  /**
   * @param {import('./env.js').Env} env
   * @param {(bytes: Uint8Array) => void} send
   * @param {() => void} [onSample]
   * @param {(ms: number) => void} [onSlept]  the steady clock stood still for so long
   */
  constructor(env, send, onSample = () => {}, onSlept = () => {}) {
    this.#env = env;
    this.#send = send;
    this.#onSample = onSample;
    this.#onSlept = onSlept;
  }

  /** ms to add to `performance.now()` to get room time. */
  get offset() {
    return this.#estimator.offsetAt(this.#env.now());
  }

  get rtt() {
    return this.#estimator.rtt;
  }

  /** ms that room time may be off. */
  get error() {
    return this.#estimator.error;
  }

  /** The step in which this page's clock moves, ms; 0 for a fine one. */
  get grain() {
    return this.#grain.ms;
  }

  get synced() {
    return this.#estimator.synced;
  }

  /** @param {number} [at] a moment of `performance.now()` */
  roomTime(at = this.#read()) {
    return at + this.#estimator.offsetAt(at);
  }

  /** (Re)starts with a burst: at connect, after sleep, when the page comes back to the front. */
  resync() {
    this.#estimator.restart();
    this.#pending.clear();
    this.#burstLeft = BURST;
    this.#wallMinusSteady = this.#env.wallNow() - this.#env.now();
    this.#probe();
  }

  /** No probes while there is no connection; the offset stays usable. */
  stop() {
    this.#env.clearTimeout(this.#timer);
    this.#timer = null;
    this.#pending.clear();
  }

  /** @param {import('./wire.js').Reply} reply */
  onReply(reply) {
    const arrival = this.#read();
    // Only the first answer to a probe counts: datagrams may come twice.
    if (this.#pending.get(reply.id) !== reply.t0) return;
    this.#pending.delete(reply.id);
    if (this.#estimator.add(reply.t0, reply.t1, reply.t2, arrival, this.#grain.ms)) this.#onSample();
  }

  #read() {
    const now = this.#env.now();
    this.#grain.add(now);
    return now;
  }

  #probe() {
    this.#env.clearTimeout(this.#timer);
    const now = this.#read();
    const slept = this.#env.wallNow() - now - this.#wallMinusSteady;
    if (Math.abs(slept) > SLEPT_MS + this.#grain.ms) {
      this.resync();
      return this.#onSlept(slept);
    }

    const id = this.#nextId;
    this.#nextId = (id + 1) & 0xffff;
    this.#pending.set(id, now);
    if (this.#pending.size > MOST_PENDING) {
      for (const oldest of this.#pending.keys()) {
        this.#pending.delete(oldest);
        break;
      }
    }
    this.#send(encodeProbe(id, now));
    if (this.#burstLeft > 0) this.#burstLeft -= 1;
    this.#timer = this.#env.setTimeout(() => this.#probe(), this.#burstLeft > 0 ? BURST_GAP_MS : STEADY_GAP_MS);
  }
}
