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
 * @property {typeof fetch} fetch
 * @property {any} WebTransport         undefined where the browser has none
 * @property {any} WebSocket
 * @property {any} RTCPeerConnection
 * @property {MediaDevices|undefined} mediaDevices
 * @property {() => boolean} hidden     whether the page is in a background tab
 * @property {(type: 'online'|'visibilitychange'|'pagehide', fn: () => void) => () => void} onPage
 *   calls `fn` on that page event; returns the function that stops it
 * @property {(fn: (event: Event) => void) => () => void} onInput
 *   calls `fn` on pointer and key events anywhere on the page, before the page's own handlers; returns what stops it
 * @property {() => boolean} userActive whether a person has pressed something on this page in the last seconds
 * @property {MediaSession|undefined} mediaSession
 * @property {() => Storage|null} defaultStorage
 */

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
    fetch: (input, init) => fetch(input, init),
    WebTransport: g.WebTransport,
    WebSocket: g.WebSocket,
    RTCPeerConnection: g.RTCPeerConnection,
    mediaDevices: g.navigator?.mediaDevices,
    hidden: () => g.document?.visibilityState === 'hidden',
    onPage(type, fn) {
      const target = type === 'visibilitychange' ? g.document : g.window;
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
    defaultStorage() {
      // Reading the property throws where the user blocks site data.
      try {
        return g.localStorage ?? null;
      } catch {
        return null;
      }
    },
  };
}

/** `crypto.randomUUID` is missing on plain-http pages; `getRandomValues` is not. */
function makeUuid() {
  if (crypto.randomUUID) return crypto.randomUUID();
  const bytes = crypto.getRandomValues(new Uint8Array(16));
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('');
}
