/**
 * The page's address: `#room=<id>[&pin=<pin>][&owner=<hash>]`, and for test drivers `&name=`, `&transport=`,
 * `&autojoin=1`. `owner` is the hash of the key of the room's owner: if the room is over, it is opened again for that
 * owner. `&over=1` is set by the server when a short link leads to a room with nobody in it. All of it is in the
 * fragment, which browsers never send: a PIN in a path or a query would end in logs.
 */

import { tidyRoomId } from './identity.js';

/** @typedef {'auto' | 'webtransport' | 'websocket'} Transport */

/** @param {string} hash */
export function readFragment(hash) {
  const params = new URLSearchParams(hash.replace(/^#/, ''));
  const transport = params.get('transport');
  const room = tidyRoomId(params.get('room') ?? '');
  // Percent-encoding that isn't UTF-8, as of a link that was cut, decodes to U+FFFD.
  const damaged = room.includes('\uFFFD');
  return {
    room: damaged ? '' : room,
    /** A room was named, but its name can't be read any more. */
    damaged,
    pin: params.get('pin') ?? '',
    name: params.get('name') ?? '',
    transport: isTransport(transport) ? transport : null,
    owner: ownerOf(params.get('owner')),
    over: params.get('over') === '1',
    autojoin: params.get('autojoin') === '1',
  };
}

/** @param {unknown} value @returns {value is Transport} */
export function isTransport(value) {
  return value === 'auto' || value === 'webtransport' || value === 'websocket';
}

/** A SHA-256 in base64url; anything else is as good as none. @param {string | null | undefined} text */
export function ownerOf(text) {
  return text && /^[A-Za-z0-9_-]{43}$/.test(text) ? text : '';
}

/** @param {{room: string, pin?: string, owner?: string}} parts */
export function roomFragment({ room, pin, owner }) {
  // Not URLSearchParams: it writes a space as "+", which other readers of fragments take for a plus.
  const also = Object.entries({ pin, owner }).map(([name, value]) => (value ? `&${name}=${encodeURIComponent(value)}` : ''));
  return `#room=${encodeURIComponent(room)}${also.join('')}`;
}
