/**
 * Requests that wait for their ACK or ERROR: each is settled once, by its `ref`, its time limit, or a lost connection.
 */
import { TandemError } from './errors.js';

const ANSWER_WITHIN_MS = 10_000;

/** @typedef {{epoch: number, seq: number}} Committed  where in the room's order a command was committed */

export class Requests {
  #env;
  /** @type {Map<number, {resolve: (at: Committed) => void, reject: (error: TandemError) => void, timer: any}>} */
  #waiting = new Map();

  /** @param {import('./env.js').Env} env */
  constructor(env) {
    this.#env = env;
  }

  /**
   * @param {number} ref
   * @param {() => void} send  throws a TandemError when the message can't be sent
   * @returns {Promise<Committed>}
   */
  add(ref, send) {
    return new Promise((resolve, reject) => {
      const timer = this.#env.setTimeout(() => this.reject(ref, new TandemError('TIMEOUT', 'the server did not answer')), ANSWER_WITHIN_MS);
      this.#waiting.set(ref, { resolve, reject, timer });
      try {
        send();
      } catch (error) {
        this.reject(ref, /** @type {TandemError} */ (error));
      }
    });
  }

  /** The refs that wait for an answer. */
  get refs() {
    return [...this.#waiting.keys()];
  }

  /** @param {number} ref */
  awaits(ref) {
    return this.#waiting.has(ref);
  }

  /** @param {number} ref @param {Committed} committed */
  resolve(ref, committed) {
    this.#take(ref)?.resolve(committed);
  }

  /** @param {number} ref @param {TandemError} error @returns {boolean} whether somebody was waiting for it */
  reject(ref, error) {
    const request = this.#take(ref);
    request?.reject(error);
    return request !== undefined;
  }

  /** @param {string} code @param {string} message */
  rejectAll(code, message) {
    for (const ref of [...this.#waiting.keys()]) this.reject(ref, new TandemError(code, message));
  }

  /** @param {number} ref */
  #take(ref) {
    const request = this.#waiting.get(ref);
    this.#waiting.delete(ref);
    this.#env.clearTimeout(request?.timer);
    return request;
  }
}
