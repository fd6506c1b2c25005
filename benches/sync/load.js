/** How busy the machine was, and at which moments. Read from /proc: this is a bench for Linux. */
import { readFileSync, readdirSync } from 'node:fs';

const SAMPLE_EVERY_MS = 20;

/** From the start to `stop`: of all cores, in percent, and when tasks had to wait for one. */
export class Load {
  #before = totals();
  /** @type {[number, number][]} wall time, µs in which some task waited for a core */
  #waits = [];
  #timer;

  constructor() {
    this.#timer = setInterval(() => this.#sample(), SAMPLE_EVERY_MS);
  }

  #sample() {
    const waited = waitedMicros();
    if (waited !== null) this.#waits.push([Date.now(), waited]);
  }

  /** The share of a time in which some task of the machine waited for a core; null when nothing is known of it. */
  pressure = (/** @type {number} */ from, /** @type {number} */ to) => {
    const [first, last] = [this.#indexBefore(from), this.#indexBefore(to) + 1];
    const [a, b] = [this.#waits[first], this.#waits[Math.min(last, this.#waits.length - 1)]];
    if (!a || !b || b[0] <= a[0] || b[0] - a[0] > to - from + 500) return null;
    return Math.min(1, (b[1] - a[1]) / 1000 / (b[0] - a[0]));
  };

  /** @param {number} at */
  #indexBefore(at) {
    let [low, high] = [0, this.#waits.length];
    while (low < high) {
      const middle = (low + high) >> 1;
      if (this.#waits[middle][0] <= at) low = middle + 1;
      else high = middle;
    }
    return Math.max(0, low - 1);
  }

  stop() {
    clearInterval(this.#timer);
    const after = totals();
    const all = after.busy - this.#before.busy + after.idle - this.#before.idle;
    const percent = (/** @type {number} */ ticks) => Math.round((100 * ticks) / all);
    const [first, last] = [this.#waits[0], this.#waits.at(-1)];
    return {
      cpuBusyPercent: percent(after.busy - this.#before.busy),
      ownCpuPercent: percent(after.own - this.#before.own),
      pressurePercent: first && last && last[0] > first[0] ? Math.round((last[1] - first[1]) / 10 / (last[0] - first[0])) : null,
    };
  }
}

function totals() {
  const [user, nice, system, idle, wait, irq, softirq] = readFileSync('/proc/stat', 'utf8').split('\n')[0].trim().split(/\s+/).slice(1).map(Number);
  return { busy: user + nice + system + irq + softirq, idle: idle + wait, own: ownTicks() };
}

/** Pressure stall information of the kernel; null where it is switched off. */
function waitedMicros() {
  try {
    return Number(/^some .*total=(\d+)/m.exec(readFileSync('/proc/pressure/cpu', 'utf8'))?.[1] ?? NaN) || null;
  } catch {
    return null;
  }
}

/** Processor time of this process and all below it, those included that have ended and were waited for. */
function ownTicks() {
  const children = new Map();
  const ticks = new Map();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ').map(Number);
      children.set(fields[1], [...(children.get(fields[1]) ?? []), Number(pid)]);
      ticks.set(Number(pid), fields[11] + fields[12] + fields[13] + fields[14]);
    } catch {
      // It ended while we looked.
    }
  }
  const sum = (/** @type {number} */ pid) => (ticks.get(pid) ?? 0) + (children.get(pid) ?? []).reduce((/** @type {number} */ total, /** @type {number} */ child) => total + sum(child), 0);
  return sum(process.pid);
}
