/** Connecting, and remembering what crossed the wire before there was a log to show it. */
import { connect } from '../client/index.js';
import { tabStorage, tabUserId } from './identity.js';

/** @typedef {import('./types.js').Room} Room */
/** @typedef {import('./types.js').Wish} Wish */
/** @typedef {{detail: any, at: Date}} Heard */

/** More than a few refused PINs are not worth keeping. */
const MOST_EARLY = 100;

/** @type {WeakMap<Room, () => Heard[]>} */
const early = new WeakMap();

/** @param {Wish} wish @returns {Promise<Room>} a room that is still connecting */
export async function openRoom(wish) {
  const room = connect({
    server: location.origin,
    roomId: wish.roomId,
    userId: await tabUserId(),
    username: wish.name,
    pin: wish.pin || null,
    transport: wish.transport,
    // The client uses getItem, setItem and removeItem.
    storage: /** @type {Storage} */ (/** @type {unknown} */ (tabStorage)),
  });
  /** @type {Heard[]} */
  const heard = [];
  const hear = (/** @type {Event} */ event) => {
    heard.push({ detail: /** @type {CustomEvent} */ (event).detail, at: new Date() });
    if (heard.length > MOST_EARLY) heard.shift();
  };
  room.addEventListener('message', hear);
  early.set(room, () => {
    room.removeEventListener('message', hear);
    return heard;
  });
  return room;
}

/** Once: from then on the caller listens. @param {Room} room */
export function takeEarly(room) {
  const taken = early.get(room)?.() ?? [];
  early.delete(room);
  return taken;
}
