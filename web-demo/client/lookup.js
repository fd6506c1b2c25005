/** Asks a server for its transports (GET /api/transports), and says in words why it can't be asked. */
import { addressOf } from './address.js';
import { TandemError } from './errors.js';

/**
 * @param {string} server
 * @param {import('./env.js').Env} env
 * @param {number} withinMs
 * @param {(cancel: () => void) => void} [onStart]  gets what cancels it
 * @returns {Promise<any>} the answer
 */
export async function lookUpTransports(server, env, withinMs, onStart) {
  const abort = new AbortController();
  onStart?.(() => abort.abort());
  const url = addressOf(server, 'api/transports');
  const timer = env.setTimeout(() => abort.abort(), withinMs);
  try {
    // Not from a cache: a self-signed certificate is renewed while the server runs.
    const response = await env.fetch(url, { signal: abort.signal, cache: 'no-store' });
    if (!response.ok) throw await refusalOf(response, server);
    return await response.json();
  } catch (error) {
    if (error instanceof TandemError) throw error;
    throw unreachable(`${url} can't be read: ${error instanceof Error ? error.message : error}. ${suspects(url)}`);
  } finally {
    env.clearTimeout(timer);
  }
}

/** @param {string} why */
export function unreachable(why) {
  return new TandemError('UNREACHABLE', why);
}

/**
 * @param {Response} response one that is no success
 * @param {string} server
 */
async function refusalOf(response, server) {
  const { code } = await response.json().catch(() => ({}));
  if (code !== 'ORIGIN_REFUSED') return new Error(`it answered ${response.status}`);
  return new TandemError('ORIGIN_REFUSED', `${server} takes no sessions of pages of this origin (ALLOWED_ORIGINS)`);
}

/**
 * Why a request may have failed: browsers hide the reason from pages, and show it to somebody who opens the address.
 * @param {string} url
 */
function suspects(url) {
  return url.startsWith('https:')
    ? 'Is the server up, does the browser trust its certificate (open the address in a tab), and is it https that listens there?'
    : 'Is the server up, and is it http that listens there? A page on https may use http on localhost only.';
}
