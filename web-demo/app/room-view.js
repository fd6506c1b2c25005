/** Puts the room on the page: one small module for each part, all ended by one signal. */
import { Call, syncVideo } from '../client/index.js';
import { setupAudience } from './audience.js';
import { setupBanners } from './banners.js';
import { setupCall } from './call-view.js';
import { setupChat } from './chat.js';
import { byId, every, listen } from './dom.js';
import { setupEnding } from './ending.js';
import { sentence } from './errors.js';
import { setupFullscreenChat } from './fullscreen-chat.js';
import { setupHostSettings } from './host.js';
import { setupInvite } from './invite.js';
import { setupKeyboard } from './keyboard.js';
import { setupLog } from './log.js';
import { setupNews } from './news.js';
import { setupPeople } from './people.js';
import { setupPlayer } from './player.js';
import { setupRail } from './rail.js';
import { takeEarly } from './session.js';
import { setupSource } from './source.js';
import { setupStats } from './stats.js';
import { setupStatus } from './status.js';
import { setupTabs } from './tabs.js';
import { toast } from './toast.js';
import { setupTrouble } from './trouble.js';

/** @typedef {import('./types.js').Room} Room */
/** @typedef {import('./types.js').Wish} Wish */
/** @typedef {import('./types.js').Ctx} Ctx */

/**
 * @typedef {object} Actions
 * @property {boolean} fresh        false: the same visit over another transport; chat and log stay
 * @property {boolean} reloaded     this tab was in the room a moment ago
 * @property {() => void} leave
 * @property {(transport: import('./types.js').Transport) => void} reconnect
 * @property {(pin: string) => void} pinChanged
 * @property {(detail: {code: number | string, reason: string, retry: boolean}) => void} closed
 */

/**
 * @param {Room} room @param {Wish} wish @param {Actions} actions
 * @returns {(options?: {keepFilm?: boolean}) => void} takes it all down again
 */
export function mountRoom(room, wish, actions) {
  const end = new AbortController();
  const { signal } = end;
  const video = byId('video', HTMLVideoElement);
  const sync = syncVideo(room, video);
  const call = new Call(room);
  /** @type {Ctx} */
  const ctx = { room, sync, call, video, signal, wish, reconnect: actions.reconnect, leave: actions.leave, pinChanged: actions.pinChanged };
  // For test drivers and the curious.
  Object.assign(window, { tandem: { room, sync, call } });

  byId('room-name', HTMLElement).textContent = wish.roomId;
  const tabs = setupTabs(ctx);
  setupStatus(ctx);
  setupBanners(ctx);
  setupAudience(ctx);
  const player = setupPlayer(ctx);
  setupSource(ctx);
  setupEnding(ctx);
  setupTrouble(ctx);
  setupRail(ctx);
  setupPeople(ctx);
  setupHostSettings(ctx);
  const early = takeEarly(room);
  const chat = setupChat(ctx, tabs, actions.fresh, early);
  setupNews(ctx, chat.system, actions.fresh, actions.reloaded);
  const filmChat = setupFullscreenChat(ctx, chat);
  setupStats(ctx, tabs);
  setupLog(ctx, tabs, actions.fresh, early);
  setupCall(ctx);
  const invite = setupInvite(ctx);
  setupKeyboard(ctx, { player, focusChat: () => filmChat.focus() });
  byId('skip', HTMLButtonElement).onclick = () => chat.focus();

  byId('leave-button', HTMLButtonElement).onclick = () => actions.leave();
  byId('alone-invite', HTMLButtonElement).onclick = () => invite.open();
  listen(room, 'error', (event) => toast(sentence(event.detail)), signal);
  listen(room, 'closed', (event) => actions.closed(event.detail), signal);
  every(1000, () => {
    byId('room-locked', HTMLElement).hidden = !room.hasPin;
  }, signal);

  return ({ keepFilm = false } = {}) => {
    end.abort();
    call.stop();
    sync.stop();
    Object.assign(window, { tandem: undefined });
    if (keepFilm) return;
    video.removeAttribute('src');
    video.load();
  };
}
