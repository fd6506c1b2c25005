/**
 * One attempt to open a connection: by the addresses that the server gives, then by those of its cluster's other nodes,
 * which know the same rooms.
 *
 * While a line is in doubt, all ways are tried at once, and the first one that opens wins. Among them are the addresses
 * by which the line was opened: when the path has died and not the server, the question for its addresses would hang in
 * one of the browser's old connections.
 *
 * @typedef {import('./transports.js').Transport} Transport
 * @typedef {import('./choice.js').Fallback} Fallback
 * @typedef {import('./address.js').Endpoints} Endpoints
 * @typedef {{transport: Transport, fallback: Fallback|null}} Opened
 *   `fallback`: why it is WebSocket and not WebTransport
 */
import { endpointsOf, endpointsOfNode } from './address.js';
import { fallbackReason, noUsableTransport, startOrder, usableTransports } from './choice.js';
import { lookUpTransports } from './lookup.js';
import { openFastest } from './race.js';

const LOOKUP_WITHIN_MS = 8000;
/** The same where there are other nodes to try. */
const LOOKUP_AMONG_NODES_MS = 2000;
/** While a line is in doubt, other nodes get their turn after this. */
const NODES_IN_DOUBT_AFTER_MS = 700;
const NODE_WITHIN_MS = 3000;

/**
 * @typedef {object} DialerOptions
 * @property {string} server
 * @property {'auto'|'webtransport'|'websocket'} preference
 * @property {import('./storage.js').Store} store
 * @property {import('./env.js').Env} env
 * @property {(kind: 'webtransport'|'websocket', endpoint: any) => Transport} open
 */

export class Dialer {
  #options;
  /** By which a connection was opened last. @type {Endpoints|null} */
  #known = null;

  /** @param {DialerOptions} options */
  constructor(options) {
    this.#options = options;
  }

  /**
   * @param {boolean} inDoubt  there is a connection, which may be dead
   * @returns {{opened: Promise<Opened>, cancel: () => void}}
   */
  dial(inDoubt) {
    const attempt = new Attempt(this.#options, inDoubt);
    const opened = (inDoubt ? attempt.allWays(this.#known) : attempt.oneByOne()).then(({ endpoints, ...opened }) => {
      this.#known = endpoints;
      return opened;
    });
    return { opened, cancel: () => attempt.cancel() };
  }
}

class Attempt {
  #options;
  #inDoubt;
  #nodes;
  #over = false;
  /** @type {Set<() => void>} */
  #cancels = new Set();

  /** @param {DialerOptions} options @param {boolean} inDoubt */
  constructor(options, inDoubt) {
    this.#options = options;
    this.#inDoubt = inDoubt;
    this.#nodes = options.store.nodes();
  }

  cancel() {
    this.#over = true;
    for (const cancel of this.#cancels) cancel();
  }

  async oneByOne() {
    try {
      return await this.#server(this.#nodes.length > 0 ? LOOKUP_AMONG_NODES_MS : LOOKUP_WITHIN_MS);
    } catch (error) {
      return await this.#others().catch(() => Promise.reject(error));
    }
  }

  /** @param {Endpoints|null} known */
  async allWays(known) {
    const server = this.#server(LOOKUP_WITHIN_MS);
    const others = this.#nodes.length > 0 ? this.#patience(server).then(() => this.#others()) : server;
    const again = known ? this.#open(known, NODE_WITHIN_MS) : server;
    try {
      return await Promise.any([server, others, again]);
    } catch {
      return await server; // Its error says most.
    } finally {
      this.cancel();
    }
  }

  /** Until the server has failed, or others get their turn. @param {Promise<unknown>} server */
  #patience(server) {
    const { env } = this.#options;
    return /** @type {Promise<void>} */ (
      new Promise((resolve) => {
        const timer = env.setTimeout(resolve, NODES_IN_DOUBT_AFTER_MS);
        this.#cancels.add(() => env.clearTimeout(timer));
        server.catch(() => resolve());
      })
    );
  }

  /** @param {number} lookUpWithin ms */
  async #server(lookUpWithin) {
    const { server, store, env } = this.#options;
    const answer = await lookUpTransports(server, env, lookUpWithin, (cancel) => this.#cancels.add(cancel));
    if (this.#over) throw cancelled();
    store.keepNodes(Array.isArray(answer.nodes) ? answer.nodes : []);
    return await this.#open(endpointsOf(server, answer));
  }

  /** One after the other, beginning with any. */
  async #others() {
    const start = Math.floor(this.#options.env.random() * this.#nodes.length);
    for (const node of [...this.#nodes.slice(start), ...this.#nodes.slice(0, start)]) {
      try {
        return await this.#open(endpointsOfNode(node), NODE_WITHIN_MS);
      } catch (error) {
        if (this.#over) throw error;
      }
    }
    throw new Error('no other node takes the connection');
  }

  /**
   * @param {Endpoints} endpoints
   * @param {number} [withinMs]
   */
  async #open(endpoints, withinMs) {
    if (this.#over) throw cancelled();
    const { server, preference, store, env, open } = this.#options;
    const usable = usableTransports(endpoints, preference, env);
    if (usable.length === 0) throw noUsableTransport(endpoints, server, preference, env);
    const order = startOrder(usable, preference, store.winner(env.wallNow()));
    const race = openFastest(order.map((kind) => () => open(kind, endpoints[kind])), env, withinMs);
    this.#cancels.add(race.cancel);
    const transport = await race.winner;
    if (this.#over) {
      transport.close(1000, 'not wanted any more');
      throw cancelled();
    }
    this.#over = true;
    const fallback = transport.kind === 'websocket' ? fallbackReason({ endpoints, order, failed: race.failed, preference, env }) : null;
    // Only a race that had a choice says anything about the network, and none that began while a line was failing.
    if (usable.length > 1 && !this.#inDoubt) store.keepWinner(transport.kind, env.wallNow());
    return { transport, fallback, endpoints };
  }
}

function cancelled() {
  return new Error('cancelled');
}
