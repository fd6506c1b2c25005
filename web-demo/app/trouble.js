/**
 * Trouble with the film: members whose players can't play it, this player's own limits, and the card over the film with
 * a button to try again. The client loads a failed film again by itself, at growing intervals; the button does it at
 * once.
 */
import { onChange } from './change.js';
import { byId, every, listen, setText } from './dom.js';
import { isolate, nameList } from './format.js';
import { toast } from './toast.js';

/** @typedef {import('./types.js').Member} Member */

/** Why somebody can't play it, in words that follow "… can't play this film: ". @type {Record<string, string>} */
const WHY = {
  network: 'its address doesn’t answer them',
  decode: 'their browser can’t decode it',
  unsupported: 'their browser can’t play it, or doesn’t reach it',
  blocked: 'their browser waits for a click',
  live: 'it is a live stream, which isn’t kept in step',
};

/** Why somebody can't keep up with it, in words that follow "… can't keep up: ". @type {Record<string, string>} */
const LAGS = {
  stalls: 'the film reaches them too slowly',
  slow: 'their device is too slow for it',
};

/** Sentences for this player's limits. @type {Record<string, string>} */
const LIMITS = {
  live: 'This is a live stream. Play and pause work for everybody, but live streams aren’t kept in step.',
  seek: 'Your player can only jump to certain places in this film, so you may be a little ahead or behind.',
  rate: 'Your player can’t play a little faster or slower, so it jumps now and then to keep up with the others.',
  stalls: 'The film reaches you too slowly to keep up with the others. They don’t wait for you; you join them again as soon as it does.',
  slow: 'Your device is too slow for this film to keep up with the others. They don’t wait for you; you join them again as soon as it can.',
  paused: 'Your browser paused the film. Press play to go on with the others.',
};

/** @param {import('./types.js').Ctx} ctx */
export function setupTrouble({ room, sync, video, signal }) {
  const note = byId('cannot-play', HTMLElement);
  const limit = byId('own-limit', HTMLElement);
  const retry = byId('error-retry', HTMLButtonElement);
  const choose = byId('error-choose', HTMLButtonElement);
  choose.onclick = () => byId('source-button', HTMLButtonElement).click();
  retry.onclick = () => {
    sync.retry();
    toast('Trying again…', 'info');
  };
  listen(video, 'loadedmetadata', () => update(), signal);

  function update() {
    const others = room.members.filter((m) => m.userId !== room.self.userId && m.connected);
    setText(note, sentenceFor(others));
    note.hidden = note.textContent === '' || !room.url;
    setText(limit, (sync.limit && LIMITS[sync.limit]) || '');
    limit.hidden = limit.textContent === '' || video.error !== null;
    choose.hidden = !room.self.canControl;
  }
  onChange(room, update, signal);
  every(1000, update, signal);
  signal.addEventListener('abort', () => (note.hidden = limit.hidden = true), { once: true });
}

/** @param {Member[]} members */
export function sentenceFor(members) {
  const failed = members.filter(({ player }) => player === 'failed');
  const lagging = members.filter(lags);
  const sentences = [about(failed, 'can’t play this film', WHY), about(lagging, 'can’t keep up', LAGS)].filter(Boolean);
  return sentences.length === 0 ? '' : `${sentences.join(' ')} The others don’t wait for them.`;
}

/**
 * @param {Member[]} members
 * @param {string} cannot
 * @param {Record<string, string>} whys
 */
function about(members, cannot, whys) {
  if (members.length === 0) return '';
  const reasons = new Set(members.map((m) => m.playerReason ?? ''));
  const [reason] = reasons;
  const why = reasons.size === 1 && whys[reason] ? `: ${whys[reason]}` : '';
  return `${nameList(members.map((m) => isolate(m.username)))} ${cannot}${why}.`;
}

/** A player that has the film, and says why it can't keep up. @param {Member} member */
function lags({ player, playerReason }) {
  return player === 'ready' && playerReason !== null;
}

/** In a list of people, where there is less room. @param {Member} member */
export function playerText(member) {
  if (lags(member)) return 'Can’t keep up';
  return member.player === 'failed' ? (member.playerReason === 'blocked' ? 'Waits for a click' : 'Can’t play the film') : '';
}
