/**
 * The page's address: `#room=<id>[&pin=<pin>]`, and for test drivers `&name=`, `&transport=`, `&autojoin=1`.
 * All of it is in the fragment, which browsers never send: a PIN in a path or a query would end in logs.
 */

/** @typedef {'auto' | 'webtransport' | 'websocket'} Transport */

/** @param {string} hash */
export function readFragment(hash) {
  const params = new URLSearchParams(hash.replace(/^#/, ''));
  const transport = params.get('transport');
  return {
    room: params.get('room') ?? '',
    pin: params.get('pin') ?? '',
    name: params.get('name') ?? '',
    transport: isTransport(transport) ? transport : null,
    autojoin: params.get('autojoin') === '1',
  };
}

/** @param {unknown} value @returns {value is Transport} */
export function isTransport(value) {
  return value === 'auto' || value === 'webtransport' || value === 'websocket';
}

/** @param {string} room @param {string} [pin] */
export function roomFragment(room, pin) {
  // Not URLSearchParams: it writes a space as "+", which other readers of fragments take for a plus.
  return `#room=${encodeURIComponent(room)}${pin ? `&pin=${encodeURIComponent(pin)}` : ''}`;
}
