/**
 * Everything the client takes from its surroundings, in one place, so that the tests can put a clock, a network and a
 * media element of their own underneath it. Nothing else in `client/` touches a global.
 *
 * @typedef {object} Env
 * @property {() => number} now         a steady clock in ms; the basis of every measurement
 * @property {() => number} wallNow     the wall clock, only ever used to notice that the steady clock stood still
 * @property {(fn: () => void, ms: number) => any} setTimeout
 * @property {(id: any) => void} clearTimeout
 * @property {() => number} random
 * @property {() => string} uuid
 * @property {() => string} secret      256 random bits, base64url
 * @property {typeof fetch} fetch
 * @property {any} WebTransport         undefined where the browser has none
 * @property {any} WebSocket
 * @property {boolean} webkit           whether the browser is WebKit, which never refills a session's receive credit
 * @property {number} mostReceived      bytes of stream data after which a WebKit client moves to a fresh session
 * @property {any} RTCPeerConnection
 * @property {MediaDevices|undefined} mediaDevices
 * @property {() => boolean} hidden     whether the page is in a background tab
 * @property {(type: PageEvent, fn: () => void) => () => void} onPage
 *   calls `fn` on that page event; returns the function that stops it
 * @property {(fn: (event: Event) => void) => () => void} onInput
 *   calls `fn` on pointer and key events anywhere on the page, before the page's own handlers; returns what stops it
 * @property {() => boolean} userActive whether a person has pressed something on this page in the last seconds
 * @property {MediaSession|undefined} mediaSession
 * @property {() => Storage|null} defaultStorage
 * @property {() => Storage|null} tabStorage    survives a reload of this tab, and nothing else
 * @property {LockManager|undefined} locks      undefined outside secure contexts
 *
 * @typedef {'online'|'visibilitychange'|'pagehide'|'pageshow'|'freeze'|'resume'} PageEvent
 */
import { toBase64Url } from './sha256.js';

const DOCUMENT_EVENTS = new Set(['visibilitychange', 'freeze', 'resume']);

/** WebKit's credit is about 16 MiB. */
const MOST_RECEIVED_BYTES = 12 * 1024 * 1024;

const INPUT_EVENTS = ['pointerdown', 'pointermove', 'pointerup', 'pointercancel', 'touchend', 'click', 'keydown', 'keyup'];

/** @returns {Env} */
export function browserEnv() {
  const g = /** @type {any} */ (globalThis);
  return {
    now: () => performance.now(),
    wallNow: () => Date.now(),
    setTimeout: (fn, ms) => setTimeout(fn, ms),
    clearTimeout: (id) => clearTimeout(id),
    random: Math.random,
    uuid: () => makeUuid(),
    secret: () => toBase64Url(crypto.getRandomValues(new Uint8Array(32))),
    fetch: (input, init) => fetch(input, init),
    WebTransport: g.WebTransport,
    WebSocket: g.WebSocket,
    // Every browser of an iPhone is WebKit, and none of the others names that vendor.
    webkit: g.navigator?.vendor?.startsWith('Apple') === true,
    mostReceived: MOST_RECEIVED_BYTES,
    RTCPeerConnection: g.RTCPeerConnection,
    mediaDevices: g.navigator?.mediaDevices,
    hidden: () => g.document?.visibilityState === 'hidden',
    onPage(type, fn) {
      const target = DOCUMENT_EVENTS.has(type) ? g.document : g.window;
      target?.addEventListener(type, fn);
      return () => target?.removeEventListener(type, fn);
    },
    onInput(fn) {
      const options = { capture: true, passive: true };
      for (const type of INPUT_EVENTS) g.window?.addEventListener(type, fn, options);
      return () => INPUT_EVENTS.forEach((type) => g.window?.removeEventListener(type, fn, options));
    },
    userActive: () => g.navigator?.userActivation?.isActive ?? true,
    mediaSession: g.navigator?.mediaSession,
    // Pages only: elsewhere (Node has both nowadays) one process is no tab among others.
    locks: g.document ? g.navigator?.locks : undefined,
    defaultStorage: () => storageOf(() => g.localStorage),
    tabStorage: () => storageOf(() => g.sessionStorage),
  };
}

/**
 * Reading the property throws where the user blocks site data.
 * @param {() => Storage|undefined} open
 */
function storageOf(open) {
  try {
    return open() ?? null;
  } catch {
    return null;
  }
}

/** `crypto.randomUUID` is missing on plain-http pages; `getRandomValues` is not. */
function makeUuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
