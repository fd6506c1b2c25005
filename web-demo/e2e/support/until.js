import { setTimeout as pause } from 'node:timers/promises';

/**
 * Waits for a condition: polls until `look` returns something true, and returns that. The error at the
 * deadline has the last value.
 * @template T
 * @param {string} what
 * @param {() => Promise<T>|T} look
 */
export async function until(what, look, { within = 20_000, every = 50, show = async () => '' } = {}) {
  const deadline = performance.now() + within;
  let last;
  for (;;) {
    try {
      last = await look();
      if (last) return last;
    } catch (error) {
      last = error;
    }
    if (performance.now() > deadline) {
      throw new Error(`waited ${within} ms in vain for: ${what}. Last seen: ${describe(last)} ${await show()}`);
    }
    await pause(every);
  }
}

function describe(value) {
  return value instanceof Error ? value.message : JSON.stringify(value);
}
