import assert from 'node:assert/strict';
import { test } from 'node:test';
import { encodeQr, formatBits, gfMultiply, interleave, penalty, qrPath, reedSolomon, versionBits } from '../app/qr.js';

/**
 * A reader of its own, only for clean matrices: it finds the mask in the format bits, walks the data area by the
 * standard's own rules and checks every block's error correction, so a mistake in the writer can't cancel itself out.
 * @param {{size: number, modules: boolean[][]}} code
 */
function readQr({ size, modules }) {
  const version = (size - 17) / 4;
  let format = 0;
  const around = [[8, 0], [8, 1], [8, 2], [8, 3], [8, 4], [8, 5], [8, 7], [8, 8], [7, 8], [5, 8], [4, 8], [3, 8], [2, 8], [1, 8], [0, 8]];
  around.forEach(([x, y], i) => { if (modules[y][x]) format |= 1 << i; });
  const mask = [0, 1, 2, 3, 4, 5, 6, 7].find((m) => formatBits(m) === format);
  assert.notEqual(mask, undefined, 'format bits name a mask at level M');
  const blank = encodeQr('', { mask });
  assert.ok(blank);

  const reserved = (/** @type {number} */ x, /** @type {number} */ y) => {
    if (x === 6 || y === 6) return true;
    if ((x < 9 && y < 9) || (x >= size - 8 && y < 9) || (x < 9 && y >= size - 8)) return true;
    if (version >= 7 && ((x < 6 && y >= size - 11) || (y < 6 && x >= size - 11))) return true;
    if (version === 1) return false;
    const n = Math.floor(version / 7) + 2;
    const step = (size - 13) / (n - 1);
    const centres = Array.from({ length: n }, (_, i) => (i === 0 ? 6 : Math.round(size - 7 - (n - 1 - i) * step)));
    return centres.some((cy, i) => centres.some((cx, j) => {
      const corner = (i === 0 && j === 0) || (i === 0 && j === n - 1) || (i === n - 1 && j === 0);
      return !corner && Math.abs(x - cx) <= 2 && Math.abs(y - cy) <= 2;
    }));
  };
  const masked = [
    (/** @type {number} */ i, /** @type {number} */ j) => (i + j) % 2, (/** @type {number} */ i) => i % 2,
    (/** @type {number} */ _i, /** @type {number} */ j) => j % 3, (/** @type {number} */ i, /** @type {number} */ j) => (i + j) % 3,
    (/** @type {number} */ i, /** @type {number} */ j) => (Math.floor(i / 2) + Math.floor(j / 3)) % 2,
    (/** @type {number} */ i, /** @type {number} */ j) => ((i * j) % 2) + ((i * j) % 3),
    (/** @type {number} */ i, /** @type {number} */ j) => (((i * j) % 2) + ((i * j) % 3)) % 2,
    (/** @type {number} */ i, /** @type {number} */ j) => (((i + j) % 2) + ((i * j) % 3)) % 2,
  ][/** @type {number} */ (mask)];

  const bits = [];
  let up = true;
  for (let right = size - 1; right > 0; right -= 2, up = !up) {
    if (right === 6) right--;
    for (let k = 0; k < size; k++) {
      const y = up ? size - 1 - k : k;
      for (const x of [right, right - 1]) {
        if (!reserved(x, y)) bits.push(modules[y][x] !== (masked(y, x) === 0) ? 1 : 0);
      }
    }
  }
  const words = [];
  for (let i = 0; i + 8 <= bits.length; i += 8) words.push(parseInt(bits.slice(i, i + 8).join(''), 2));

  const [ec, blocks, total] = [[10, 1, 26], [16, 1, 44], [26, 1, 70], [18, 2, 100], [24, 2, 134], [16, 4, 172], [18, 4, 196], [22, 4, 242], [22, 5, 292], [26, 5, 346]][version - 1];
  assert.equal(words.length, total, `version ${version} carries ${total} codewords`);
  const dataLength = total - ec * blocks;
  const short = Math.floor(dataLength / blocks);
  const long = dataLength % blocks;
  /** @type {number[][]} */
  const split = Array.from({ length: blocks }, () => []);
  let at = 0;
  for (let i = 0; i < short; i++) for (const b of split) b.push(words[at++]);
  for (let b = blocks - long; b < blocks; b++) split[b].push(words[at++]);
  const data = split.flat();
  for (let i = 0; i < ec; i++) for (const b of split) b.push(words[at++]);
  for (const block of split) {
    // A sound block is a multiple of the generator: it vanishes at every root.
    let root = 1;
    for (let i = 0; i < ec; i++) {
      assert.equal(block.reduce((sum, byte) => gfMultiply(sum, root) ^ byte, 0), 0, 'syndrome is zero');
      root = gfMultiply(root, 2);
    }
  }
  const stream = data.map((b) => b.toString(2).padStart(8, '0')).join('');
  assert.equal(stream.slice(0, 4), '0100');
  const lengthBits = version < 10 ? 8 : 16;
  const length = parseInt(stream.slice(4, 4 + lengthBits), 2);
  const bytes = [];
  for (let i = 0; i < length; i++) bytes.push(parseInt(stream.slice(4 + lengthBits + i * 8, 12 + lengthBits + i * 8), 2));
  return new TextDecoder().decode(new Uint8Array(bytes));
}

test('every length that fits reads back, in the smallest version that holds it', () => {
  const limits = [14, 26, 42, 62, 84, 106, 122, 152, 180, 213];
  for (let length = 0; length <= 213; length++) {
    const text = Array.from({ length }, (_, i) => String.fromCharCode(33 + ((i * 7 + length) % 90))).join('');
    const code = encodeQr(text);
    assert.ok(code);
    assert.equal(code.version, limits.findIndex((limit) => length <= limit) + 1);
    assert.equal(readQr(code), text);
  }
});

test('every mask reads back', () => {
  for (let mask = 0; mask < 8; mask++) {
    const code = encodeQr('https://tandem.example/#room=quiet-otter-42&pin=47%2011', { mask });
    assert.ok(code);
    assert.equal(readQr(code), 'https://tandem.example/#room=quiet-otter-42&pin=47%2011');
  }
});

test('the mask with the smallest penalty is chosen', () => {
  const text = 'https://tandem.example/room/k3j9x2a';
  const chosen = encodeQr(text);
  assert.ok(chosen);
  const all = [0, 1, 2, 3, 4, 5, 6, 7].map((mask) => penalty(/** @type {any} */ (encodeQr(text, { mask })).modules));
  assert.equal(penalty(chosen.modules), Math.min(...all));
});

test('text outside ASCII travels as UTF-8', () => {
  const code = encodeQr('https://tandem.example/#room=kinoabend&name=Zoë');
  assert.ok(code);
  assert.equal(readQr(code), 'https://tandem.example/#room=kinoabend&name=Zoë');
});

test('a text beyond version 10 is refused, not cut', () => {
  assert.equal(encodeQr('x'.repeat(214)), null);
});

test('format and version information match the tables of the standard', () => {
  assert.deepEqual([0, 1, 2, 3, 4, 5, 6, 7].map(formatBits), [0x5412, 0x5125, 0x5e7c, 0x5b4b, 0x45f9, 0x40ce, 0x4f97, 0x4aa0]);
  assert.deepEqual([7, 8, 9, 10].map(versionBits), [0x07c94, 0x085bc, 0x09a99, 0x0a4d3]);
});

test("error correction matches the standard's worked example", () => {
  const data = [0x10, 0x20, 0x0c, 0x56, 0x61, 0x80, 0xec, 0x11, 0xec, 0x11, 0xec, 0x11, 0xec, 0x11, 0xec, 0x11];
  assert.deepEqual(reedSolomon(data, 10), [0xa5, 0x24, 0xd4, 0xc1, 0xed, 0x36, 0xc7, 0x87, 0x2c, 0x55]);
});

test('longer blocks come last when the data does not divide evenly', () => {
  const data = Array.from({ length: 154 }, (_, i) => i);
  const woven = interleave(data, 8);
  assert.deepEqual(woven.slice(0, 4), [0, 38, 76, 115]);
  assert.deepEqual(woven.slice(152, 154), [114, 153]);
});

test('the path covers every dark module once', () => {
  const code = encodeQr('tandem');
  assert.ok(code);
  const dark = code.modules.flat().filter(Boolean).length;
  const drawn = [...qrPath(code).matchAll(/h(\d+)v1/g)].reduce((sum, match) => sum + Number(match[1]), 0);
  assert.equal(drawn, dark);
});
