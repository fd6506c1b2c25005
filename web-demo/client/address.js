/**
 * Addresses of a server, relative to where the client found it: behind a proxy a server may stand under a path
 * (`https://example.org/watch/`), and it can't know the scheme, host and port that its clients use.
 *
 * @typedef {import('./transports.js').WebTransportEndpoint} WebTransportEndpoint
 * @typedef {import('./transports.js').WebSocketEndpoint} WebSocketEndpoint
 * @typedef {{webtransport: WebTransportEndpoint|null, websocket: WebSocketEndpoint|null}} Endpoints
 * @typedef {{webTransport?: WebTransportEndpoint, webSocket?: WebSocketEndpoint}} NodeEndpoints
 *   of another node of a cluster
 */

import { TandemError } from './errors.js';

/**
 * The base of a server's addresses: its path ends with a slash, and nothing follows it.
 * @param {string} server as given to `connect`
 * @throws {TandemError} BAD_SERVER
 */
export function baseOf(server) {
  const base = parse(server);
  if (!base.pathname.endsWith('/')) base.pathname += '/';
  base.search = '';
  base.hash = '';
  return base;
}

/** @param {string} server */
function parse(server) {
  try {
    const url = new URL(server);
    if (url.protocol === 'https:' || url.protocol === 'http:') return url;
  } catch {
    // The same complaint as for another scheme.
  }
  throw new TandemError('BAD_SERVER', `server must be a complete http or https address such as https://tandem.example:4433, not ${JSON.stringify(server)}`);
}

/**
 * @param {string} server
 * @param {string} path relative, such as `api/transports`
 */
export function addressOf(server, path) {
  return new URL(path, baseOf(server)).href;
}

/**
 * The addresses to connect to, from the answer of /api/transports. `path` and `port` are relative to where the client
 * asked; `url` is what the server makes of the request that it saw, whose host may be a proxy's.
 * @param {string} server
 * @param {any} answer
 * @returns {Endpoints}
 */
export function endpointsOf(server, answer) {
  const base = baseOf(server);
  return {
    webtransport: answer?.webtransport ? onPort(base, answer.webtransport) : null,
    websocket: answer?.websocket ? atPath(base, answer.websocket) : null,
  };
}

/**
 * @param {NodeEndpoints} node
 * @returns {Endpoints}
 */
export function endpointsOfNode(node) {
  return { webtransport: node.webTransport ?? null, websocket: node.webSocket ?? null };
}

/**
 * @param {URL} base
 * @param {any} endpoint
 * @returns {WebSocketEndpoint}
 */
function atPath(base, endpoint) {
  if (typeof endpoint.path !== 'string') return endpoint;
  const url = new URL(endpoint.path, new URL('api/transports', base));
  url.protocol = url.protocol === 'https:' ? 'wss:' : 'ws:';
  return { ...endpoint, url: url.href };
}

/**
 * `localhost` stays as the server spells it: browsers try only the first address of a name for QUIC, which may be ::1
 * where the server listens on 127.0.0.1.
 * @param {URL} base
 * @param {any} endpoint
 * @returns {WebTransportEndpoint}
 */
function onPort(base, endpoint) {
  if (!Number.isInteger(endpoint.port) || base.hostname === 'localhost') return endpoint;
  const url = new URL(endpoint.url);
  url.hostname = base.hostname;
  url.port = String(endpoint.port);
  return { ...endpoint, url: url.href };
}
