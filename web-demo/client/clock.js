/**
 * Room time on this page's steady clock. The server stamps each probe on arrival and departure; the exchange with the
 * smallest round trip among recent ones bounds the offset best (its error is at most half of its round trip).
 */
import { encodeProbe } from './wire.js';

const WINDOW = 16;

/** What an old sample is worth less for each ms of age: two quartz clocks part by up to 50 ppm, doubled for safety. */
const AGE_PENALTY = 0.0001;

/** Once synced, the offset glides: a film must not jump because an estimate got better. */
const SLEW_MS_PER_MS = 0.005;
const STEP_ABOVE_MS = 50;

const SAMPLES_TO_SYNC = 4;

/** The estimator: exchanges in, offset out. It owns no timer and reads no clock. */
export class OffsetEstimator {
  /** @type {{offset: number, rtt: number, at: number}[]} */
  #samples = [];
  #target = 0;
  #from = 0;
  #since = 0;
  #everSynced = false;

  rtt = Infinity;
  /** Half of the best round trip: the offset can't be further off than this, but for drift since. */
  error = Infinity;
  synced = false;

  /**
   * @param {number} t0 departure of the probe, on our clock
   * @param {number} t1 its arrival, in room time
   * @param {number} t2 departure of the reply, in room time
   * @param {number} t3 its arrival, on our clock
   * @returns {boolean} whether the exchange was usable
   */
  add(t0, t1, t2, t3) {
    const rtt = t3 - t0 - (t2 - t1);
    if (!(rtt >= 0) || t2 < t1) return false;
    this.#samples.push({ offset: (t1 - t0 + (t2 - t3)) / 2, rtt, at: t3 });
    if (this.#samples.length > WINDOW) this.#samples.shift();

    const cost = (/** @type {{rtt: number, at: number}} */ s) => s.rtt / 2 + (t3 - s.at) * AGE_PENALTY;
    const best = this.#samples.reduce((a, b) => (cost(b) <= cost(a) ? b : a));
    this.rtt = best.rtt;
    this.error = cost(best);
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

  /** Forgets what was measured (the clock may have stood still), but keeps answering until there is something better. */
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
  #estimator = new OffsetEstimator();
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
   */
  constructor(env, send, onSample = () => {}) {
    this.#env = env;
    this.#send = send;
    this.#onSample = onSample;
  }

  /** ms to add to `performance.now()` to get room time. */
  get offset() {
    return this.#estimator.offsetAt(this.#env.now());
  }

  get rtt() {
    return this.#estimator.rtt;
  }

  get error() {
    return this.#estimator.error;
  }

  get synced() {
    return this.#estimator.synced;
  }

  /** @param {number} [at] a moment of `performance.now()` */
  roomTime(at = this.#env.now()) {
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
    const arrival = this.#env.now();
    // Only an answer to a question that is open counts, and counts once: datagrams may come twice.
    if (this.#pending.get(reply.id) !== reply.t0) return;
    this.#pending.delete(reply.id);
    if (this.#estimator.add(reply.t0, reply.t1, reply.t2, arrival)) this.#onSample();
  }

  #probe() {
    this.#env.clearTimeout(this.#timer);
    const now = this.#env.now();
    if (Math.abs(this.#env.wallNow() - now - this.#wallMinusSteady) > SLEPT_MS) return this.resync();

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
