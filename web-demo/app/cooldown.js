/** Keeps until when a room refuses a visitor whom its host removed, for the tab: a reload goes on counting. */
import { tabStorage } from './identity.js';

const KEY = 'tandem.refused';

/** The server's default of KICK_COOLDOWN_SECS. A kick doesn't say how long it holds; a refused JOIN does. */
export const KICK_COOLDOWN_MS = 60_000;

/** @param {string} roomId @param {number} ms */
export function startCooldown(roomId, ms) {
  tabStorage.setItem(KEY, JSON.stringify({ roomId, until: Date.now() + ms }));
}

/** Rest of the cooldown, ms; 0: none. @param {string} roomId */
export function cooldownLeft(roomId) {
  try {
    const kept = JSON.parse(tabStorage.getItem(KEY) ?? '{}');
    return kept.roomId === roomId && Number.isFinite(kept.until) ? Math.max(0, kept.until - Date.now()) : 0;
  } catch {
    return 0;
  }
}

/**
 * Disables a button and counts down on it: "Join again in 42 s".
 * @param {HTMLButtonElement} button @param {number} ms
 * @param {() => void} done  called once, at the end; not after stopping
 * @returns {() => void} stops it; the button stays as it is
 */
export function countDown(button, ms, done) {
  const until = performance.now() + ms;
  /** @type {ReturnType<typeof setInterval> | undefined} */
  let timer = undefined;
  const tick = () => {
    const left = Math.ceil((until - performance.now()) / 1000);
    button.disabled = left > 0;
    if (left > 0) button.textContent = `Join again in ${left} s`;
    else {
      clearInterval(timer);
      done();
    }
  };
  timer = setInterval(tick, 250);
  tick();
  return () => clearInterval(timer);
}
