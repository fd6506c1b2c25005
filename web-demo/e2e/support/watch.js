/** What a test counts in a tab while something happens to it, or to another one. */

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
