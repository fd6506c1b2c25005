/**
 * The fresh session that a connection opens beside the one in use, to replace it (move.js), and when that is due:
 * before the receive credit is used up that WebKit never refills.
 *
 * @typedef {import('./transports.js').Transport} Transport
 *
 * @typedef {object} FreshTaker  takes what the fresh session says
 * @property {(json: string) => void} takeFresh
 * @property {(bytes: Uint8Array) => void} takeFreshCompact
 * @property {() => void} freshEnded
 */

/** Bytes beyond `mostReceived` after which a client that could not move reconnects instead. */
const WORN_OUT_BYTES = 2 * 1024 * 1024;
/** A move that failed is tried again after this. */
const AGAIN_MS = 5000;

export class Beside {
  #env;
  /** @type {Transport|null} */
  #transport = null;
  /** @type {FreshTaker|null} */
  #taker = null;
  #notBefore = 0;
  #cancel = () => {};

  /** @param {import('./env.js').Env} env */
  constructor(env) {
    this.#env = env;
  }

  /**
   * @param {FreshTaker} taker
   * @param {{opened: Promise<import('./dial.js').Opened>, cancel: () => void}} dialing
   * @returns {Promise<Transport>}
   */
  async open(taker, dialing) {
    this.clear();
    this.#taker = taker;
    this.#cancel = dialing.cancel;
    const { transport } = await dialing.opened;
    if (this.#taker !== taker) transport.close(1000, 'not wanted any more');
    else this.#transport = transport;
    return transport;
  }

  /** @param {Transport} transport */
  takerOf(transport) {
    return this.#transport === transport ? this.#taker : null;
  }

  clear() {
    if (this.#transport === null) this.#cancel();
    this.#cancel = () => {};
    this.#transport = null;
    this.#taker = null;
  }

  failed() {
    this.clear();
    this.#notBefore = this.#env.now() + AGAIN_MS;
  }

  /**
   * @param {number} received  bytes of stream data
   * @returns {'stay'|'move'|'reconnect'}
   */
  due(received) {
    const { webkit, mostReceived } = this.#env;
    if (!webkit || received < mostReceived) return 'stay';
    if (this.#taker === null && this.#env.now() >= this.#notBefore) return 'move';
    return received >= mostReceived + WORN_OUT_BYTES && this.#transport === null ? 'reconnect' : 'stay';
  }
}
