/**
 * A refusal by the room, or the end of a request whose connection is lost.
 * `code` is one of PROTOCOL.md §5, or one of the client's own: DISCONNECTED (the connection went while the request was
 * under way: it may or may not have been committed), TIMEOUT (no answer), CLOSED (the room object is finished). A room
 * that can't be reached says why: BAD_SERVER (`server` is not an http or https address; thrown by `connect`),
 * NO_TRANSPORT (neither WebTransport nor WebSocket here), ORIGIN_REFUSED (the server takes no sessions of this page's
 * origin), UNREACHABLE (everything else, in words).
 */
export class TandemError extends Error {
  /**
   * @param {string} code
   * @param {string} message
   * @param {{retryAfterMs?: number, request?: string}} [details]
   */
  constructor(code, message, { retryAfterMs, request } = {}) {
    super(message);
    this.name = 'TandemError';
    this.code = code;
    /** How long to wait before trying again, where the server said so. */
    this.retryAfterMs = retryAfterMs;
    /** The type of the message that was refused, where the server said so. */
    this.request = request;
  }

  /** @param {any} message an ERROR message */
  static fromMessage(message) {
    return new TandemError(String(message.code ?? 'INTERNAL'), String(message.message ?? 'the server refused this'), {
      retryAfterMs: Number.isFinite(message.retryAfterMs) ? message.retryAfterMs : undefined,
      request: typeof message.request === 'string' ? message.request : undefined,
    });
  }
}

/** Closing codes after which the server doesn't want this client back by itself (PROTOCOL.md §2). */
const FINAL_CLOSING_CODES = new Set([1000, 4000, 4001, 4005, 4006, 4007, 4011]);

/** Final closing codes that end the membership, too. */
const ENDED_MEMBERSHIP = new Set([4006, 4007]);

/** @param {number|string} code */
export function endsMembership(code) {
  return typeof code === 'number' && ENDED_MEMBERSHIP.has(code);
}

/** Another page of the same member took the membership over. */
export const SUPERSEDED = 4005;

/**
 * The closing code that one's own USER_LEFT stands for; null: none, the member left or was lost.
 * @param {unknown} reason
 */
export function codeOfLeaving(reason) {
  return reason === 'kicked' ? 4006 : reason === 'banned' ? 4007 : null;
}

/** Closing codes after which the server wants this client back, but not at once. */
const LATER_CLOSING_CODES = new Set([4002, 4009]);

/**
 * Whether to reconnect after a close: no, at once (with backoff), or later. Codes that this client doesn't know (a
 * proxy's, 1006 of a cut line) count as a lost connection.
 * @param {number} code
 * @returns {'never'|'soon'|'later'}
 */
export function retryAfterClose(code) {
  if (FINAL_CLOSING_CODES.has(code)) return 'never';
  return LATER_CLOSING_CODES.has(code) ? 'later' : 'soon';
}

/** The ERROR codes that a JOIN may meet and that pass by themselves; every other refusal of a JOIN is final. */
const PASSING_REFUSALS = new Set(['OVERLOADED', 'UNAVAILABLE', 'INTERNAL', 'RATE_LIMITED']);

/** @param {string} code */
export function isPassingRefusal(code) {
  return PASSING_REFUSALS.has(code);
}
