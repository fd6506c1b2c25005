/** What a test counts in a tab while something happens to it, or to another one. */
import assert from 'node:assert/strict';

/** Begins to count. @param {{page: any, inStep: () => Promise<unknown>}} tab */
export async function watch(tab) {
  await tab.page.evaluate(() => {
    const { room } = window.tandem;
    const video = document.querySelector('#video');
    const seen = { seeks: 0, pauses: 0, commands: [], vectors: 0, joins: 0, states: [] };
    window.seen = seen;
    video.addEventListener('seeking', () => (seen.seeks += 1));
    video.addEventListener('pause', () => (seen.pauses += 1));
    room.addEventListener('playback', () => (seen.vectors += 1));
    room.addEventListener('state', ({ detail }) => seen.states.push(detail));
    room.addEventListener('message', ({ detail: { direction, message } }) => {
      if (direction !== 'out') return;
      if (['PLAY_PAUSE', 'SEEK', 'SET_RATE', 'URL_CHANGE', 'SYNC_PLAYBACK'].includes(message.type)) seen.commands.push(message);
      if (message.type === 'JOIN') seen.joins += 1;
    });
  });
}

/**
 * @typedef {{seeks: number, pauses: number, commands: any[], vectors: number, joins: number, states: string[]}} Seen
 * @param {{page: any, inStep: () => Promise<unknown>}} tab
 * @returns {Promise<Seen>}
 */
export const seen = (tab) => tab.page.evaluate(() => window.seen);

/**
 * Waits until a tab plays where the room is again, and returns how long it took, ms.
 * @param {{page: any, inStep: () => Promise<unknown>}} tab
 */
export async function backInStep(tab, since) {
  await tab.inStep();
  return Math.round(performance.now() - since);
}

/** The film goes on for a while, as a tab sees it. */
export async function filmGoesOn(tab, seconds) {
  const from = await tab.page.evaluate(() => window.tandem.room.positionNow());
  await tab.until(`${seconds} s more of the film`, (to) => window.tandem.room.positionNow() > to, from + seconds, { within: seconds * 1000 + 20_000 });
}

/** Whoever had nothing to do with it has noticed nothing. */
export async function assertUndisturbed(tab) {
  const { seeks, pauses, vectors, commands } = await seen(tab);
  assert.deepEqual({ seeks, pauses, vectors, commands }, { seeks: 0, pauses: 0, vectors: 0, commands: [] }, `${tab.name} was pulled along`);
}
