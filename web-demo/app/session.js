/** Connecting, and remembering what crossed the wire, and what was said, before there was a view to show it. */
import { connect } from '../client/index.js';

/** @typedef {import('./types.js').Room} Room */
/** @typedef {import('./types.js').Wish} Wish */
/** @typedef {{type: string, detail: any, at: Date}} Heard */

/** A few refused PINs, and the last lines of the chat, which follow the room's state in the same packet. */
const MOST_EARLY = 500;
const TYPES = ['message', 'chat'];

/** @type {WeakMap<Room, {heard: Heard[], stop: () => void}>} */
const early = new WeakMap();

/** @param {Wish} wish @returns {Promise<Room>} a room that is still connecting */
export async function openRoom(wish) {
  const room = connect({
    // The page may stand under a path of a proxy.
    server: new URL('.', location.href).href,
    roomId: wish.roomId,
    username: wish.name,
    pin: wish.pin || null,
    owner: wish.owner || null,
    transport: wish.transport,
    // The visitor sees that it hasn't answered, and may stop it.
    keepTrying: true,
  });
  /** @type {Heard[]} */
  const heard = [];
  const hear = (/** @type {Event} */ event) => {
    heard.push({ type: event.type, detail: /** @type {CustomEvent} */ (event).detail, at: new Date() });
    if (heard.length > MOST_EARLY) heard.shift();
  };
  for (const type of TYPES) room.addEventListener(type, hear);
  early.set(room, {
    heard,
    stop() {
      for (const type of TYPES) room.removeEventListener(type, hear);
    },
  });
  return room;
}

/**
 * Everything heard so far; from then on the caller listens. Later calls for the same room get nothing.
 * @param {Room} room
 * @returns {Heard[]}
 */
export function takeEarly(room) {
  const kept = early.get(room);
  early.delete(room);
  kept?.stop();
  return kept?.heard ?? [];
}
