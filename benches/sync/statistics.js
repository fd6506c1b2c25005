/**
 * Quantiles with confidence intervals. Pure; chance comes from a seed.
 *
 * Readings that belong together (the tabs of one command, the frames of ten seconds) are no independent evidence, so
 * the bootstrap draws whole clusters with replacement: an interval of 500 frames of one bad moment is as wide as that
 * one moment deserves.
 *
 * @typedef {{value: number, cluster: string|number}} Reading
 * @typedef {object} Figure
 * @property {number} n  readings
 * @property {number} clusters
 * @property {number|null} p50  of the sizes, as all but the last
 * @property {number|null} p95
 * @property {[number, number]|null} p95Range  95 % confidence
 * @property {number|null} max
 * @property {number|null} signedMedian  tells a bias from a spread
 */

const ROUNDS = 1000;
const CONFIDENCE = 0.95;
/** An interval of fewer clusters than this would be a guess that looks like a measurement. */
const FEWEST_CLUSTERS = 5;

/** @param {number[]} sorted ascending @param {number} q */
export function quantile(sorted, q) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : null;
}

/** @param {number[]} values */
export function median(values) {
  return quantile([...values].sort((a, b) => a - b), 0.5);
}

/** Of the sizes of the readings. @param {Reading[]} readings @returns {Figure} */
export function figure(readings, { seed = 1 } = {}) {
  const sizes = readings.map(({ value, cluster }) => ({ value: Math.abs(value), cluster }));
  const sorted = sizes.map(({ value }) => value).sort((a, b) => a - b);
  const range = quantileRange(sizes, 0.95, { seed });
  return {
    n: sorted.length,
    clusters: new Set(sizes.map(({ cluster }) => cluster)).size,
    p50: round(quantile(sorted, 0.5)),
    p95: round(quantile(sorted, 0.95)),
    p95Range: range && [round(range[0]), round(range[1])],
    max: round(quantile(sorted, 1)),
    signedMedian: round(median(readings.map(({ value }) => value))),
  };
}

/**
 * The cluster bootstrap of a quantile (percentile method).
 * @param {Reading[]} readings
 * @param {number} q
 * @returns {[number, number]|null} null when there are too few clusters to say
 */
export function quantileRange(readings, q, { seed = 1, rounds = ROUNDS, confidence = CONFIDENCE } = {}) {
  const numbers = new Map();
  for (const { cluster } of readings) if (!numbers.has(cluster)) numbers.set(cluster, numbers.size);
  const clusters = numbers.size;
  if (clusters < FEWEST_CLUSTERS) return null;
  // Sorted once; a round only changes how often each cluster counts.
  const sorted = readings.map(({ value, cluster }) => ({ value, number: numbers.get(cluster) })).sort((a, b) => a.value - b.value);
  const values = Float64Array.from(sorted, ({ value }) => value);
  const owner = Uint32Array.from(sorted, ({ number }) => number);
  const sizes = new Uint32Array(clusters);
  for (const number of owner) sizes[number] += 1;
  const random = mulberry32(seed);
  const found = [];
  for (let each = 0; each < rounds; each++) {
    const times = new Uint32Array(clusters);
    let total = 0;
    for (let draw = 0; draw < clusters; draw++) {
      const drawn = Math.floor(random() * clusters);
      times[drawn] += 1;
      total += sizes[drawn];
    }
    const rank = Math.min(total - 1, Math.floor(q * total));
    let passed = 0;
    let index = 0;
    for (; index < values.length; index++) {
      passed += times[owner[index]];
      if (passed > rank) break;
    }
    found.push(values[index]);
  }
  found.sort((a, b) => a - b);
  const tail = (1 - confidence) / 2;
  return [/** @type {number} */ (quantile(found, tail)), /** @type {number} */ (quantile(found, 1 - tail))];
}

/** @param {number|null} value */
export function round(value) {
  return value === null ? null : Math.round(value * 100) / 100;
}

/** Chance that is the same every time. @param {number} seed @returns {() => number} at least 0, less than 1 */
export function mulberry32(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
