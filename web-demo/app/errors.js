/** From typed codes to sentences. A code is for programs; what the visitor needs is what happened and what to do. */

/** @type {Record<string, string>} */
const SENTENCES = {
  NOT_HOST: 'Only the host can do that.',
  NOT_IN_CONTROL: 'Only the host can play, pause and seek here. The host can let everyone do it.',
  PIN_REQUIRED: 'This room has a PIN.',
  PIN_WRONG: 'That PIN is not right.',
  PIN_THROTTLED: 'Too many wrong PINs. Wait a little before the next try.',
  BAD_PIN_FORMAT: 'A PIN has 1 to 64 printable characters.',
  BAD_URL: 'That address can’t be used: it must begin with https:// and be allowed on this server.',
  BAD_ID: 'That room name has characters that can’t be used.',
  BAD_MESSAGE: 'The server could not read that message.',
  UNKNOWN_TYPE: 'The server does not know that kind of message.',
  OUT_OF_RANGE: 'One of the values is too large, too small or too long.',
  USER_ID_TAKEN: 'Another tab has your place in this room. Close that tab, or open a new one.',
  TOKEN_INVALID: 'Your place in the room could not be confirmed. Join again.',
  USER_BANNED: 'The host has banned you from this room.',
  KICKED: 'The host removed you a moment ago. You can come back soon.',
  ORIGIN_REFUSED: 'This server does not take visitors from the site that this page is on. Whoever runs the server can allow it (ALLOWED_ORIGINS).',
  STALE: 'The film has changed meanwhile.',
  ROOM_FULL: 'The room is full.',
  NO_ROOM: 'Nobody is in this room at the moment.',
  FORBIDDEN: 'Only members of the room can do that; you are in its audience.',
  ROOM_LIMIT: 'The server has no place for another room right now.',
  SESSION_LIMIT: 'You are in too many rooms at once. Leave one first.',
  TARGET_GONE: 'That person has just left.',
  NO_GATE: 'Nobody is being waited for any more.',
  NOT_JOINED: 'You are not in the room yet.',
  RATE_LIMITED: 'That was a little fast. Try again in a moment.',
  OVERLOADED: 'The server is at its limit. Try again in a minute.',
  UNAVAILABLE: 'The server can’t take that right now. Try again in a moment.',
  TOO_BIG: 'That is too large to send.',
  INTERNAL: 'The server made a mistake. Try again.',
  TIMEOUT: 'The server did not answer in time.',
  UNREACHABLE: 'The server can’t be reached. Still trying…',
  BAD_SERVER: 'The address of the server is not valid.',
  NO_TRANSPORT: 'This browser can’t connect in the way that was chosen. Try another connection.',
  CLOSED: 'The connection is closed.',
};

/** @typedef {{code?: unknown, message?: unknown, retryAfterMs?: unknown}} ErrorLike */

/** @param {unknown} error @returns {string} */
export function codeOf(error) {
  const code = /** @type {ErrorLike | null} */ (error)?.code;
  return typeof code === 'string' ? code : '';
}

/** @param {unknown} error @returns {string} */
export function sentence(error) {
  const { message, retryAfterMs } = /** @type {ErrorLike} */ (error ?? {});
  const known = SENTENCES[codeOf(error)];
  const wait = typeof retryAfterMs === 'number' && retryAfterMs > 0 ? ` Next try in ${Math.ceil(retryAfterMs / 1000)} s.` : '';
  if (known) return known + wait;
  return typeof message === 'string' && message ? `It did not work: ${message}` : 'It did not work.';
}

/**
 * Why the session ended for good.
 * @param {{code?: number | string, reason?: string}} detail
 * @returns {{title: string, text: string, again: boolean}}
 */
export function closeStory({ code, reason }) {
  // A JOIN that was refused while coming back closes with its error code.
  if (typeof code === 'string' && code in SENTENCES) {
    return { title: 'You can’t come back in', text: sentence({ code }), again: code !== 'USER_BANNED' };
  }
  switch (Number(code)) {
    case 4005:
      return { title: 'You are here in another tab', text: 'The other tab took over your place. Join again to go on here.', again: true };
    case 4006:
      return { title: 'The host removed you', text: 'You can’t come back for about a minute; then you can join again.', again: true };
    case 4007:
      return { title: 'The host banned you', text: 'This browser can’t enter the room until the host lifts the ban.', again: false };
    case 4011:
      return { title: 'The room is over', text: 'Everybody who was in it has left.', again: true };
    case 4000:
    case 4001:
      return { title: 'The connection was ended', text: `The server refused what this page sent${reason ? ` (${reason})` : ''}.`, again: true };
    default:
      return { title: 'You are no longer connected', text: reason ? `The server says: ${reason}.` : 'The server could not be reached again.', again: true };
  }
}
