/** Connecting, and changing the transport without losing one's seat. */
import { connect } from '../client/index.js';
import { tabStorage, tabUserId } from './identity.js';

/** @typedef {import('./types.js').Room} Room */
/** @typedef {import('./types.js').Wish} Wish */

/**
 * What a connection may keep in this tab. Once retired it may still read, no longer write: the connection that took its
 * seat over has written a newer resume token under the same key.
 */
class SeatStorage {
  retired = false;
  /** @param {string} key */
  getItem(key) {
    return tabStorage.getItem(key);
  }
  /** @param {string} key @param {string} value */
  setItem(key, value) {
    if (!this.retired) tabStorage.setItem(key, value);
  }
  /** @param {string} key */
  removeItem(key) {
    if (!this.retired) tabStorage.removeItem(key);
  }
}

/** @type {WeakMap<Room, SeatStorage>} */
const seats = new WeakMap();

/** @param {Wish} wish @returns {Promise<Room>} a room that is still connecting */
export async function openRoom(wish) {
  const seat = new SeatStorage();
  const room = connect({
    server: location.origin,
    roomId: wish.roomId,
    userId: await tabUserId(),
    username: wish.name,
    pin: wish.pin || null,
    transport: wish.transport,
    // The client uses getItem, setItem and removeItem.
    storage: /** @type {Storage} */ (/** @type {unknown} */ (seat)),
  });
  seats.set(room, seat);
  return room;
}

/**
 * Hands the seat to a connection that is opened next. The server closes the old one as superseded (4005) when the new
 * JOIN brings the resume token, so nobody sees this member leave. Should the old one lose its line at that very moment,
 * it must not come back and take the seat again: then it is ended here.
 * @param {Room} room
 */
export function retireRoom(room) {
  const seat = seats.get(room);
  if (seat) seat.retired = true;
  const endUnlessJoined = () => {
    if (room.state === 'reconnecting' || room.state === 'connecting') room.leave();
  };
  room.addEventListener('state', endUnlessJoined);
  endUnlessJoined();
}
