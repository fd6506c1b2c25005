/** The room's `change` event, slowed to what eyes can follow: every tick of every member fires one. */

const AT_MOST_EVERY_MS = 120;

/**
 * Calls at once on the first change, then at most every 120 ms; the last change is never missed.
 * @param {EventTarget} room @param {() => void} update @param {AbortSignal} signal
 */
export function onChange(room, update, signal) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  let last = 0;
  const run = () => {
    timer = undefined;
    last = performance.now();
    update();
  };
  room.addEventListener('change', () => {
    if (timer !== undefined) return;
    const wait = AT_MOST_EVERY_MS - (performance.now() - last);
    if (wait <= 0) run();
    else timer = setTimeout(run, wait);
  }, { signal });
  signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
}
