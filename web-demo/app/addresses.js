/** Finds an address by which other people reach this page: `localhost` in a link means the reader's own machine. */

const ANSWERS_WITHIN_MS = 3000;

/** @param {string} hostname */
export function isLoopback(hostname) {
  return hostname === 'localhost' || hostname.endsWith('.localhost') || hostname === '[::1]' || /^127\.\d+\.\d+\.\d+$/.test(hostname);
}

/**
 * The origin for invitations, and what the host should know about it (empty: nothing).
 * @returns {Promise<{origin: string, warning: string}>}
 */
export async function othersOrigin() {
  if (!isLoopback(location.hostname)) return { origin: location.origin, warning: '' };
  const origin = (await machineOrigins())[0];
  return origin
    ? {
      origin,
      warning: `You are here by ${location.host}, which only this machine understands. The link names this machine’s address in your network instead.${
        origin.startsWith('https:') ? ' The others’ browsers will warn about the server’s own certificate; that is expected.' : ''}`,
    }
    : {
      origin: location.origin,
      warning: `This link works on this machine only: the server listens at ${location.hostname} alone. To let others in, start it with HOST=0.0.0.0 and open one of the addresses that it prints.`,
    };
}

/**
 * The server's addresses for others, which it tells to its own machine only; best first.
 * @returns {Promise<string[]>}
 */
async function machineOrigins() {
  try {
    const answer = await fetch(new URL('api/addresses', document.baseURI), { signal: AbortSignal.timeout(ANSWERS_WITHIN_MS) });
    const { origins } = await answer.json();
    return Array.isArray(origins) ? origins.filter((origin) => typeof origin === 'string' && /^https?:\/\/[^/]+$/.test(origin)) : [];
  } catch {
    // An older server, or one that is restarting: the page's own address is all there is.
    return [];
  }
}
