/**
 * Films of the server itself travel as a path below `/media/`, so that the address of the one who chose the film
 * (localhost, a name of the own network) is not handed to others: each client resolves the path against the server base
 * that it uses.
 */
const OWN_FILMS = '/media/';

/**
 * The address that a player loads.
 * @param {string|null} url as the room has it
 * @param {string} server
 * @returns {string|null}
 */
export function resolveFilm(url, server) {
  // Concatenation, not URL resolution: `//host/` must not become another host.
  return url !== null && url.startsWith('/') ? baseOf(server) + url : url;
}

/**
 * The address that the room is told.
 * @param {string} url as an application or a person gives it
 * @param {string} server
 * @returns {string}
 */
export function filmForRoom(url, server) {
  const base = baseOf(server);
  return url.startsWith(base + OWN_FILMS) ? url.slice(base.length) : url;
}

/** @param {string} server */
function baseOf(server) {
  const { origin, pathname } = new URL(server);
  return origin + pathname.replace(/\/+$/, '');
}
