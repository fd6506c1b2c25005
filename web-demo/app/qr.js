/**
 * A QR encoder, as much of one as a share link needs: byte mode, versions 1–10, error correction level M.
 *
 * Written here rather than taken from somewhere because the page loads nothing from other hosts and this much is small.
 * The names follow ISO/IEC 18004. `test-app/qr.test.js` checks it against fixed matrices and block arithmetic.
 */

/** Level M, by version (index 0 unused): error correction codewords per block, blocks, and all codewords. */
const EC_PER_BLOCK = [0, 10, 16, 26, 18, 24, 16, 18, 22, 22, 26];
const BLOCKS = [0, 1, 1, 1, 2, 2, 4, 4, 4, 5, 5];
const CODEWORDS = [0, 26, 44, 70, 100, 134, 172, 196, 242, 292, 346];
/** Centres of the alignment patterns, by version. */
const ALIGNMENT = [[], [], [6, 18], [6, 22], [6, 26], [6, 30], [6, 34], [6, 22, 38], [6, 24, 42], [6, 26, 46], [6, 28, 50]];
const MAX_VERSION = 10;
/** Level M's two bits in the format information. */
const LEVEL_M = 0b00;

/** @type {((x: number, y: number) => boolean)[]} */
const MASKS = [
  (x, y) => (x + y) % 2 === 0,
  (_x, y) => y % 2 === 0,
  (x) => x % 3 === 0,
  (x, y) => (x + y) % 3 === 0,
  (x, y) => (Math.floor(x / 3) + Math.floor(y / 2)) % 2 === 0,
  (x, y) => ((x * y) % 2) + ((x * y) % 3) === 0,
  (x, y) => (((x * y) % 2) + ((x * y) % 3)) % 2 === 0,
  (x, y) => (((x + y) % 2) + ((x * y) % 3)) % 2 === 0,
];

/**
 * @typedef {object} QrCode
 * @property {number} version
 * @property {number} size   modules per side
 * @property {number} mask
 * @property {boolean[][]} modules  rows of columns, true = dark
 */

/**
 * @param {string} text
 * @param {{mask?: number}} [options]  a fixed mask, for tests
 * @returns {QrCode | null} null when the text does not fit into version 10
 */
export function encodeQr(text, options = {}) {
  const bytes = new TextEncoder().encode(text);
  const version = smallestVersion(bytes.length);
  if (version === 0) return null;
  const codewords = interleave(dataCodewords(bytes, version), version);

  let best = /** @type {QrCode | null} */ (null);
  let bestPenalty = Infinity;
  for (let mask = 0; mask < MASKS.length; mask++) {
    if (options.mask !== undefined && options.mask !== mask) continue;
    const modules = draw(codewords, version, mask);
    const score = penalty(modules);
    if (score < bestPenalty) {
      bestPenalty = score;
      best = { version, size: modules.length, mask, modules };
    }
  }
  return best;
}

/**
 * One SVG path for all dark modules, one unit a module, runs joined so that renderers leave no hairlines.
 * @param {QrCode} code
 */
export function qrPath(code) {
  const parts = [];
  for (let y = 0; y < code.size; y++) {
    for (let x = 0; x < code.size; x++) {
      if (!code.modules[y][x]) continue;
      let run = 1;
      while (x + run < code.size && code.modules[y][x + run]) run++;
      parts.push(`M${x} ${y}h${run}v1h-${run}z`);
      x += run;
    }
  }
  return parts.join('');
}

/** @param {number} version */
function dataCapacity(version) {
  return CODEWORDS[version] - EC_PER_BLOCK[version] * BLOCKS[version];
}

/** The length field grows from 8 to 16 bits at version 10. @param {number} version */
const lengthBits = (version) => (version < 10 ? 8 : 16);

/** @param {number} length */
function smallestVersion(length) {
  for (let version = 1; version <= MAX_VERSION; version++) {
    if (4 + lengthBits(version) + length * 8 <= dataCapacity(version) * 8) return version;
  }
  return 0;
}

/**
 * Mode, length, bytes, terminator, padding.
 * @param {Uint8Array} bytes @param {number} version
 */
function dataCodewords(bytes, version) {
  /** @type {number[]} */
  const bits = [];
  const put = (/** @type {number} */ value, /** @type {number} */ count) => {
    for (let i = count - 1; i >= 0; i--) bits.push((value >>> i) & 1);
  };
  const capacity = dataCapacity(version);
  put(0b0100, 4);
  put(bytes.length, lengthBits(version));
  for (const byte of bytes) put(byte, 8);
  put(0, Math.min(4, capacity * 8 - bits.length));
  while (bits.length % 8) bits.push(0);

  const out = [];
  for (let i = 0; i < bits.length; i += 8) out.push(parseInt(bits.slice(i, i + 8).join(''), 2));
  for (let pad = 0xec; out.length < capacity; pad ^= 0xec ^ 0x11) out.push(pad);
  return out;
}

/**
 * Split into blocks (the later ones hold one codeword more), add error correction, weave both.
 * @param {number[]} data @param {number} version
 */
export function interleave(data, version) {
  const blocks = BLOCKS[version];
  const ecLength = EC_PER_BLOCK[version];
  const short = Math.floor(data.length / blocks);
  const longFrom = blocks - (data.length % blocks);
  const parts = [];
  let at = 0;
  for (let b = 0; b < blocks; b++) {
    const length = short + (b >= longFrom ? 1 : 0);
    const block = data.slice(at, at + length);
    at += length;
    parts.push({ block, ec: reedSolomon(block, ecLength) });
  }
  const out = [];
  for (let i = 0; i <= short; i++) for (const { block } of parts) if (i < block.length) out.push(block[i]);
  for (let i = 0; i < ecLength; i++) for (const { ec } of parts) out.push(ec[i]);
  return out;
}

/** Multiplication in GF(256) with the QR polynomial x⁸+x⁴+x³+x²+1. @param {number} a @param {number} b */
export function gfMultiply(a, b) {
  let product = 0;
  for (let i = 7; i >= 0; i--) {
    product = (product << 1) ^ ((product >>> 7) * 0x11d);
    product ^= ((b >>> i) & 1) * a;
  }
  return product;
}

/** @param {number[]} data @param {number} length */
export function reedSolomon(data, length) {
  // The generator polynomial (x-2⁰)(x-2¹)…, without its leading 1.
  const generator = new Array(length).fill(0);
  generator[length - 1] = 1;
  let root = 1;
  for (let i = 0; i < length; i++) {
    for (let j = 0; j < length; j++) {
      generator[j] = gfMultiply(generator[j], root);
      if (j + 1 < length) generator[j] ^= generator[j + 1];
    }
    root = gfMultiply(root, 2);
  }
  const remainder = new Array(length).fill(0);
  for (const byte of data) {
    const factor = byte ^ remainder.shift();
    remainder.push(0);
    for (let i = 0; i < length; i++) remainder[i] ^= gfMultiply(generator[i], factor);
  }
  return remainder;
}

/**
 * @param {number[]} codewords @param {number} version @param {number} mask
 * @returns {boolean[][]}
 */
function draw(codewords, version, mask) {
  const size = 17 + 4 * version;
  const modules = Array.from({ length: size }, () => new Array(size).fill(false));
  const fixed = Array.from({ length: size }, () => new Array(size).fill(false));
  const set = (/** @type {number} */ x, /** @type {number} */ y, /** @type {boolean} */ dark) => {
    if (x < 0 || y < 0 || x >= size || y >= size) return;
    modules[y][x] = dark;
    fixed[y][x] = true;
  };

  for (let i = 0; i < size; i++) {
    set(6, i, i % 2 === 0);
    set(i, 6, i % 2 === 0);
  }
  for (const [cx, cy] of [[3, 3], [size - 4, 3], [3, size - 4]]) {
    for (let dy = -4; dy <= 4; dy++) {
      for (let dx = -4; dx <= 4; dx++) {
        const ring = Math.max(Math.abs(dx), Math.abs(dy));
        set(cx + dx, cy + dy, ring !== 2 && ring !== 4);
      }
    }
  }
  const centres = ALIGNMENT[version];
  const last = centres.length - 1;
  centres.forEach((cy, i) => centres.forEach((cx, j) => {
    // Three corners belong to the finder patterns.
    if ((i === 0 && j === 0) || (i === 0 && j === last) || (i === last && j === 0)) return;
    for (let dy = -2; dy <= 2; dy++) {
      for (let dx = -2; dx <= 2; dx++) set(cx + dx, cy + dy, Math.max(Math.abs(dx), Math.abs(dy)) !== 1);
    }
  }));
  drawFormat(set, size, mask);
  drawVersion(set, size, version);

  // Data: two columns at a time from the right, up and down in turn, the timing column skipped.
  let bit = 0;
  for (let right = size - 1; right >= 1; right -= 2) {
    if (right === 6) right = 5;
    for (let step = 0; step < size; step++) {
      const upward = ((right + 1) & 2) === 0;
      const y = upward ? size - 1 - step : step;
      for (const x of [right, right - 1]) {
        if (fixed[y][x]) continue;
        const dark = bit < codewords.length * 8 && ((codewords[bit >>> 3] >>> (7 - (bit & 7))) & 1) === 1;
        modules[y][x] = dark !== MASKS[mask](x, y);
        bit++;
      }
    }
  }
  return modules;
}

/** @param {number} value @param {number} polynomial @param {number} bits */
function bch(value, polynomial, bits) {
  let remainder = value;
  for (let i = 0; i < bits; i++) remainder = (remainder << 1) ^ ((remainder >>> (bits - 1)) * polynomial);
  return (value << bits) | remainder;
}

/** @param {number} mask the 15 bits of format information at level M */
export const formatBits = (mask) => bch((LEVEL_M << 3) | mask, 0x537, 10) ^ 0x5412;
/** @param {number} version the 18 bits of version information */
export const versionBits = (version) => bch(version, 0x1f25, 12);

/**
 * @param {(x: number, y: number, dark: boolean) => void} set
 * @param {number} size @param {number} mask
 */
function drawFormat(set, size, mask) {
  const bits = formatBits(mask);
  const bit = (/** @type {number} */ i) => ((bits >>> i) & 1) === 1;
  for (let i = 0; i <= 5; i++) set(8, i, bit(i));
  set(8, 7, bit(6));
  set(8, 8, bit(7));
  set(7, 8, bit(8));
  for (let i = 9; i < 15; i++) set(14 - i, 8, bit(i));
  for (let i = 0; i < 8; i++) set(size - 1 - i, 8, bit(i));
  for (let i = 8; i < 15; i++) set(8, size - 15 + i, bit(i));
  set(8, size - 8, true);
}

/**
 * @param {(x: number, y: number, dark: boolean) => void} set
 * @param {number} size @param {number} version
 */
function drawVersion(set, size, version) {
  if (version < 7) return;
  const bits = versionBits(version);
  for (let i = 0; i < 18; i++) {
    const dark = ((bits >>> i) & 1) === 1;
    const a = size - 11 + (i % 3);
    const b = Math.floor(i / 3);
    set(a, b, dark);
    set(b, a, dark);
  }
}

/** The four penalties of the standard. @param {boolean[][]} modules */
export function penalty(modules) {
  const size = modules.length;
  const column = (/** @type {number} */ x) => modules.map((row) => row[x]);
  let total = 0;
  let dark = 0;
  for (let i = 0; i < size; i++) {
    total += linePenalty(modules[i]) + linePenalty(column(i));
    for (let j = 0; j < size; j++) {
      if (modules[i][j]) dark++;
      if (i + 1 < size && j + 1 < size) {
        const c = modules[i][j];
        if (c === modules[i][j + 1] && c === modules[i + 1][j] && c === modules[i + 1][j + 1]) total += 3;
      }
    }
  }
  const percent = (dark * 100) / (size * size);
  return total + Math.floor(Math.abs(percent - 50) / 5) * 10;
}

/** Runs of five and more, and the finder-like 1:1:3:1:1 with four light on a side. @param {boolean[]} line */
function linePenalty(line) {
  let total = 0;
  let run = 1;
  for (let i = 1; i <= line.length; i++) {
    if (i < line.length && line[i] === line[i - 1]) {
      run++;
      continue;
    }
    if (run >= 5) total += run - 2;
    run = 1;
  }
  const text = line.map((d) => (d ? '1' : '0')).join('');
  for (const pattern of ['10111010000', '00001011101']) {
    for (let at = text.indexOf(pattern); at !== -1; at = text.indexOf(pattern, at + 1)) total += 40;
  }
  return total;
}
