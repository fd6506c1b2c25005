/**
 * Replaces a session by a fresh one while the room goes on (PROTOCOL §7, "The move"): the membership doesn't pause, the
 * others see nothing, and no message is lost or comes twice.
 *
 * WebKit never gives back QUIC's flow-control credit for stream data that it has received (WebKit bug 319818), so a
 * WebTransport session hears nothing more after about 16 MiB. Such a client moves before that.
 *
 * ```text
 * opening ─► settling: new messages wait; the old session answers the earlier ones ─► joining: JOIN {move}
 *        ─► draining: the fresh session has ROOM_STATE, the old one says what comes before that ─► done
 * ```
 * Until JOIN is sent, a failure leaves everything as it was. After it the server may have closed the old session, and a
 * failure is a lost connection: the member resumes with its token.
 */
import { encodeJson } from './wire.js';

const SETTLE_WITHIN_MS = 3000;
const JOIN_WITHIN_MS = 5000;
const DRAIN_WITHIN_MS = 3000;

/** @typedef {import('./transports.js').Transport} Transport */
/** @typedef {'opening'|'settling'|'joining'|'draining'|'over'} Phase */

/**
 * @typedef {object} MoveSteps
 * @property {(move: Move) => Promise<Transport>} open  opens the fresh session; what it says goes to the move
 * @property {(message: any) => void} sendOld
 * @property {() => boolean} settled             whether everything that was sent before has its answer
 * @property {() => any} join                    the JOIN, with a `ref`
 * @property {(transport: Transport, joined: string, later: (string|Uint8Array)[], held: any[]) => void} done
 *   the fresh session is the one in use from here on: it said `joined` (ROOM_STATE), then `later`; `held` waits for it
 * @property {(held: any[], unsure: boolean, lost: boolean) => void} failed
 *   `unsure`: the server may have moved the member all the same; `lost`: the old session is over as well
 */

export class Move {
  #env;
  #steps;
  /** @type {Phase} */
  #phase = 'opening';
  /** @type {Transport|null} */
  #fresh = null;
  /** Echo of the PING after which the old session has taken everything. */
  #barrier;
  #passed = false;
  /** @type {any[]} */
  #held = [];
  #joinRef = 0;
  #joined = '';
  /** What the fresh session said after ROOM_STATE. @type {(string|Uint8Array)[]} */
  #later = [];
  #oldEnded = false;
  /** @type {any} */
  #timer = null;

  /**
   * @param {import('./env.js').Env} env
   * @param {number} number  of this client's moves
   * @param {MoveSteps} steps
   */
  constructor(env, number, steps) {
    this.#env = env;
    this.#steps = steps;
    // No other PING has a negative time.
    this.#barrier = -number;
    steps.open(this).then(
      (transport) => this.#settle(transport),
      () => this.#fail(),
    );
  }

  /** Whether messages wait for the fresh session. */
  get holds() {
    return this.#phase !== 'opening' && this.#phase !== 'over';
  }

  /** Whether JOIN was sent: the old session's end is no end of the membership from here on. */
  get committed() {
    return this.#phase === 'joining' || this.#phase === 'draining';
  }

  /** @param {any} message kept for the fresh session */
  hold(message) {
    this.#held.push(message);
  }

  /** @param {any} message one that the old session said, after it was handled */
  takeOld(message) {
    if (this.#phase !== 'settling') return;
    this.#passed ||= message.type === 'PONG' && message.echo === this.#barrier;
    this.#joinWhenSettled();
  }

  /** The old session has ended. @returns {boolean} whether the move takes care of that */
  oldEnded() {
    if (!this.committed) return false;
    this.#oldEnded = true;
    if (this.#phase === 'draining') this.#finish();
    return true;
  }

  /** @param {string} json */
  takeFresh(json) {
    if (this.#phase === 'draining') this.#later.push(json);
    if (this.#phase !== 'joining') return;
    const message = parse(json);
    if (message?.type === 'ERROR' && message.ref === this.#joinRef) return this.#fail(false);
    if (message?.type !== 'ROOM_STATE') return;
    this.#joined = json;
    this.#phase = 'draining';
    if (this.#oldEnded) return this.#finish();
    // An old session that stalls, as WebKit's does, would never say its end. CHAT is told again by the fresh one.
    this.#wait(DRAIN_WITHIN_MS, () => this.#finish());
  }

  /** @param {Uint8Array} bytes */
  takeFreshCompact(bytes) {
    if (this.#phase === 'draining') this.#later.push(bytes);
  }

  freshEnded() {
    this.#fail();
  }

  /** The membership is to end, on whichever session it is. */
  leave() {
    if (this.committed) this.#fresh?.send(encodeJson({ type: 'LEAVE' }));
    this.#phase = 'over';
    this.#env.clearTimeout(this.#timer);
  }

  /** The connection is lost or ended by itself: the fresh session goes too. */
  cancel() {
    if (this.#phase === 'over') return;
    this.#phase = 'over';
    this.#env.clearTimeout(this.#timer);
    this.#fresh?.close(1000, 'not wanted any more');
  }

  /** @param {Transport} transport */
  #settle(transport) {
    if (this.#phase === 'over') return transport.close(1000, 'not wanted any more');
    this.#fresh = transport;
    this.#phase = 'settling';
    this.#steps.sendOld({ type: 'PING', timestamp: this.#barrier });
    this.#wait(SETTLE_WITHIN_MS, () => this.#fail());
  }

  #joinWhenSettled() {
    if (!this.#passed || !this.#steps.settled()) return;
    this.#phase = 'joining';
    const join = this.#steps.join();
    this.#joinRef = join.ref;
    this.#fresh?.send(encodeJson(join));
    this.#wait(JOIN_WITHIN_MS, () => this.#fail());
  }

  #finish() {
    const fresh = /** @type {Transport} */ (this.#fresh);
    this.#phase = 'over';
    this.#env.clearTimeout(this.#timer);
    this.#steps.done(fresh, this.#joined, this.#later, this.#held);
  }

  /** @param {boolean} [unsure] whether the server may have moved the member all the same */
  #fail(unsure = this.committed) {
    if (this.#phase === 'over') return;
    this.cancel();
    this.#steps.failed(this.#held, unsure, this.#oldEnded);
  }

  /**
   * @param {number} ms
   * @param {() => void} then
   */
  #wait(ms, then) {
    this.#env.clearTimeout(this.#timer);
    this.#timer = this.#env.setTimeout(then, ms);
  }
}

/**
 * Begins a move of a room's session.
 * @param {object} of
 * @param {import('./env.js').Env} of.env
 * @param {number} of.number
 * @param {import('./connection.js').Connection} of.connection
 * @param {import('./requests.js').Requests} of.requests
 * @param {() => any} of.join   the JOIN, with a `ref`
 * @param {() => void} of.over  it is done, or has failed
 */
export function beginMove({ env, number, connection, requests, join, over }) {
  /** @type {number[]} */
  let asked = [];
  const sendHeld = (/** @type {any[]} */ held) => held.forEach((message) => connection.send(message));
  return new Move(env, number, {
    open: (move) => connection.openBeside(move),
    sendOld(message) {
      asked = requests.refs;
      connection.send(message);
    },
    settled: () => !asked.some((ref) => requests.awaits(ref)),
    join,
    done(fresh, joined, later, held) {
      over();
      connection.switchTo(fresh);
      for (const said of [joined, ...later]) connection.takeIn(said);
      sendHeld(held);
    },
    failed(held, unsure, lost) {
      over();
      connection.moveFailed(unsure, lost);
      sendHeld(held);
    },
  });
}

/** @param {string} json */
function parse(json) {
  try {
    return JSON.parse(json);
  } catch {
    return null;
  }
}
