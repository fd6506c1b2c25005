/** An environment under the test's control: time, timers, the page's events, randomness. No test waits in real time. */

import { mulberry32 as seededRandom } from '../../../benches/sync/statistics.js';

export { seededRandom };

/** TEST_SEED repeats a run; the seed is printed. */
export function testSeed(t) {
  const seed = Number(process.env.TEST_SEED ?? Math.floor(Math.random() * 2 ** 31));
  t.diagnostic(`TEST_SEED=${seed}`);
  return seed;
}

export class FakeEnv {
  constructor({ seed = 1 } = {}) {
    this.time = 1000;
    this.wallOffset = 1_795_000_000_000;
    this.isHidden = false;
    this.random = seededRandom(seed);
    this.timers = new Map();
    this.nextTimer = 1;
    this.pageListeners = new Map();
    this.inputListeners = new Set();
    this.mediaSession = undefined;
    this.isActive = false;
    this.userActive = () => this.isActive;
    this.uuids = 0;
    this.now = () => this.time;
    this.wallNow = () => this.wallOffset + this.time;
    this.hidden = () => this.isHidden;
    this.uuid = () => `made-up-${++this.uuids}`;
    this.defaultStorage = () => null;
    this.setTimeout = (fn, ms) => {
      const id = this.nextTimer++;
      this.timers.set(id, { at: this.time + Math.max(0, ms), fn });
      return id;
    };
    this.clearTimeout = (id) => this.timers.delete(id);
    this.onPage = (type, fn) => {
      const listeners = this.pageListeners.get(type) ?? new Set();
      this.pageListeners.set(type, listeners.add(fn));
      return () => listeners.delete(fn);
    };
  }

  onInput = (fn) => {
    this.inputListeners.add(fn);
    return () => this.inputListeners.delete(fn);
  };

  /** A person touches the page: a key or the pointer, on `target`. */
  input(type, { target = {}, isTrusted = true, ...rest } = {}) {
    const event = { type, isTrusted, target, composedPath: () => [target], buttons: 0, ...rest };
    for (const fn of [...this.inputListeners]) fn(event);
  }

  page(type) {
    for (const fn of [...(this.pageListeners.get(type) ?? [])]) fn();
  }

  /** Lets every promise that can settle do so. */
  async settle() {
    await new Promise((resolve) => setImmediate(resolve));
  }

  /** Moves time on, timer by timer. */
  async advance(ms) {
    const end = this.time + ms;
    await this.settle();
    for (let atOnce = 0, last = this.time; ; atOnce = this.time > last ? 0 : atOnce + 1, last = this.time) {
      if (atOnce > 1000) throw new Error(`time stands still at ${this.time}: timers make timers`);
      let next = null;
      for (const [id, timer] of this.timers) {
        if (timer.at <= end && (next === null || timer.at < next.timer.at)) next = { id, timer };
      }
      if (next === null) break;
      this.timers.delete(next.id);
      this.time = Math.max(this.time, next.timer.at);
      next.timer.fn();
      await this.settle();
    }
    this.time = end;
  }

  /** Advances until something is true; fails with its name when it doesn't become so. */
  async until(what, condition, within = 30_000) {
    const end = this.time + within;
    await this.settle();
    while (!condition()) {
      if (this.time >= end) throw new Error(`not within ${within} ms: ${what}`);
      await this.advance(10);
    }
  }

  get pending() {
    return this.timers.size;
  }
}

export class FakeStorage {
  items = new Map();
  getItem(key) {
    return this.items.get(key) ?? null;
  }
  setItem(key, value) {
    this.items.set(key, String(value));
  }
  removeItem(key) {
    this.items.delete(key);
  }
}
