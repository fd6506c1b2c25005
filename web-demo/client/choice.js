/**
 * Which transports are tried, in which order, and why WebSocket it was in the end.
 *
 * @typedef {'webtransport'|'websocket'} Kind
 * @typedef {'auto'|Kind} Preference
 * @typedef {import('./address.js').Endpoints} Endpoints
 * @typedef {'unsupported'|'not_offered'|'failed'|'slow'|'remembered'|'chosen'} Fallback  PROTOCOL.md, JOIN
 */
import { TandemError } from './errors.js';

/**
 * @param {Endpoints} endpoints
 * @param {Preference} preference
 * @param {import('./env.js').Env} env
 * @returns {Kind[]} best first
 */
export function usableTransports(endpoints, preference, env) {
  /** @type {Kind[]} */
  const kinds = [];
  if (preference !== 'websocket' && endpoints.webtransport && env.WebTransport) kinds.push('webtransport');
  if (preference !== 'webtransport' && endpoints.websocket && env.WebSocket) kinds.push('websocket');
  return kinds;
}

/**
 * The order in which they get their start: the winner of the last race first.
 * @param {Kind[]} usable
 * @param {Preference} preference
 * @param {string|null} winner
 */
export function startOrder(usable, preference, winner) {
  return preference === 'auto' && winner === 'websocket' ? [...usable].reverse() : usable;
}

/**
 * Why it is WebSocket and not WebTransport.
 * @param {object} race
 * @param {Endpoints} race.endpoints
 * @param {Kind[]} race.order
 * @param {Set<number>} race.failed  indices into `order`
 * @param {Preference} race.preference
 * @param {import('./env.js').Env} race.env
 * @returns {Fallback}
 */
export function fallbackReason({ endpoints, order, failed, preference, env }) {
  if (preference === 'websocket') return 'chosen';
  if (!env.WebTransport) return 'unsupported';
  if (!endpoints.webtransport) return 'not_offered';
  if (order[0] === 'websocket') return 'remembered';
  return failed.has(order.indexOf('webtransport')) ? 'failed' : 'slow';
}

/**
 * @param {Endpoints} endpoints
 * @param {string} server
 * @param {Preference} preference
 * @param {import('./env.js').Env} env
 */
export function noUsableTransport(endpoints, server, preference, env) {
  if (!env.WebTransport && !env.WebSocket) {
    return new TandemError('NO_TRANSPORT', 'this environment has neither WebTransport nor WebSocket (Node has one from version 22 on)');
  }
  const offered = [endpoints.webtransport && 'WebTransport', endpoints.websocket && 'WebSocket'].filter(Boolean).join(', ');
  const wanted = preference === 'auto' ? 'what this environment has' : preference;
  return new TandemError('NO_TRANSPORT', `${wanted} is not among what ${server} offers (${offered || 'nothing'})`);
}
