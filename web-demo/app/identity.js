/**
 * The page's storage, people's colours and initials, and names of rooms. Name and theme are in localStorage, so that
 * they come back next week; the room of a tab is in sessionStorage. The userId of a tab is the client's business
 * (client/seat.js).
 */

/** A Storage that never throws: some browsers forbid storage, and the page must work there too. */
class SafeStorage {
  /** @param {() => Storage} open */
  constructor(open) {
    /** @type {Map<string, string>} */
    this.memory = new Map();
    try {
      this.real = open();
    } catch {
      this.real = null;
    }
  }
  /** @param {string} key @returns {string | null} */
  getItem(key) {
    try {
      if (this.real) return this.real.getItem(key);
    } catch { /* fall through to memory */ }
    return this.memory.get(key) ?? null;
  }
  /** @param {string} key @param {string} value */
  setItem(key, value) {
    this.memory.set(key, value);
    try {
      this.real?.setItem(key, value);
    } catch { /* full or forbidden: memory holds it for this page */ }
  }
  /** @param {string} key */
  removeItem(key) {
    this.memory.delete(key);
    try {
      this.real?.removeItem(key);
    } catch { /* nothing to remove then */ }
  }
}

export const tabStorage = new SafeStorage(() => sessionStorage);
export const longStorage = new SafeStorage(() => localStorage);

const ADJECTIVES = 'amber brisk calm candid clever copper cosy daring early gentle golden happy hidden honest jolly keen late lively lunar mellow merry misty noble patient quiet rapid ruby silent silver sunny swift velvet warm wild'.split(' ');
const NOUNS = 'badger beacon birch canyon cinema comet cricket falcon ferry fjord garden gazelle harbour heron island lantern lynx maple meadow orchard otter parlour pebble pepper piano raven river rocket saddle sparrow studio terrace thistle walrus willow'.split(' ');

/** A room id that can be read out over the phone, yet not guessed by trying (about 12 million of them). */
export function suggestRoomId() {
  const [a, b, c] = crypto.getRandomValues(new Uint32Array(3));
  return `${ADJECTIVES[a % ADJECTIVES.length]}-${NOUNS[b % NOUNS.length]}-${String(c % 10_000).padStart(4, '0')}`;
}

/** One spelling for names that look the same: composed letters, single spaces. @param {string} text */
export function tidyRoomId(text) {
  return text.normalize('NFC').replace(/\s+/gu, ' ').trim();
}

/** PROTOCOL.md: what a room's name can't contain. */
const NOT_IN_ROOM_IDS = /[/\\#?%<>{}"`|^&]/;

/** Whether it can be a room's name; the server has the last word. Takes a tidy one. @param {string} text */
export function isRoomId(text) {
  const graphemes = typeof Intl.Segmenter === 'function' ? [...new Intl.Segmenter().segment(text)].length : [...text].length;
  return graphemes >= 1 && graphemes <= 64 && /[\p{L}\p{N}\p{P}\p{S}]/u.test(text) && !/\p{Cc}/u.test(text) && !NOT_IN_ROOM_IDS.test(text);
}

/** Every member's colour follows from the id alone, so that all screens agree. @param {string} userId */
export function hueOf(userId) {
  let hash = 2166136261;
  for (let i = 0; i < userId.length; i++) hash = Math.imul(hash ^ userId.charCodeAt(i), 16777619);
  // The last step mixes: ids that differ in one character must not get neighbouring hues. 24 hues are still told apart.
  hash ^= hash >>> 15;
  return String(((hash >>> 0) % 24) * 15);
}

/** @param {string} name */
export function initials(name) {
  const words = name.trim().split(/\s+/).filter(Boolean);
  const first = [...(words[0] ?? '?')][0] ?? '?';
  const second = words.length > 1 ? [...words[words.length - 1]][0] ?? '' : '';
  return first + second;
}
