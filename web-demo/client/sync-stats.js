const MOST_KEPT = 600;

/** The drift of the last minute of playing, and how often the player had to jump. */
export class SyncStats {
  /** @type {number[]} */
  #drifts = [];
  jumps = 0;

  /** @param {number} drift */
  add(drift) {
    this.#drifts.push(drift);
    if (this.#drifts.length > MOST_KEPT) this.#drifts.shift();
  }

  summary() {
    const sizes = this.#drifts.map(Math.abs).sort((a, b) => a - b);
    const quantile = (/** @type {number} */ q) => sizes[Math.min(sizes.length - 1, Math.floor(q * sizes.length))] ?? null;
    return { samples: sizes.length, p50: quantile(0.5), p95: quantile(0.95), max: quantile(1), jumps: this.jumps };
  }
}
