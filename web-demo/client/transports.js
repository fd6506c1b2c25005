/**
 * WebTransport and WebSocket behind one small interface, so that nothing above differs by transport.
 *
 * @typedef {object} Handlers
 * @property {(json: string) => void} onMessage
 * @property {(bytes: Uint8Array) => void} onCompact
 * @property {(end: {code: number, reason: string}) => void} onClose
 *   at most once; 1006 when no code came; not promised after `close`
 *
 * @typedef {object} Transport
 * @property {'webtransport'|'websocket'} kind
 * @property {Promise<void>} opened              rejects when it never opens
 * @property {(json: Uint8Array) => void} send   reliable, in order
 * @property {(bytes: Uint8Array) => void} sendCompact  may be lost; on a full queue it is
 * @property {(code: number, reason: string) => void} close
 * @property {number} received                   bytes of stream data that QUIC's flow control has counted; 0 elsewhere
 *
 * @typedef {{url: string, serverCertificateHashes?: {algorithm: string, value: string}[]}} WebTransportEndpoint
 * @typedef {{url: string}} WebSocketEndpoint
 */
import { FrameDecoder, WireError, frame } from './wire.js';

/** A close without a code: the line was cut. WebSocket's own number for it. */
export const NO_CODE = 1006;

const PROTOCOL_ERROR = 4000;

/** Unsent bytes at which a connection that has stopped taking data is given up. */
const MOST_UNSENT_BYTES = 1_048_576;

/** Ticks and probes are dropped behind this much unsent: they would arrive too old. */
const MOST_UNSENT_BEFORE_COMPACT = 16_384;

/**
 * @param {WebTransportEndpoint} endpoint
 * @param {import('./env.js').Env} env
 * @param {Handlers} handlers
 * @returns {Transport}
 */
export function openWebTransport({ url, serverCertificateHashes }, env, handlers) {
  const session = new env.WebTransport(url, {
    congestionControl: 'low-latency',
    ...(serverCertificateHashes?.length && {
      serverCertificateHashes: serverCertificateHashes.map(({ algorithm, value }) => ({
        algorithm,
        value: fromBase64(value),
      })),
    }),
  });
  const ended = once(handlers.onClose);
  /** @type {WritableStreamDefaultWriter<Uint8Array>|undefined} */
  let control;
  /** @type {WritableStreamDefaultWriter<Uint8Array>|undefined} */
  let datagrams;
  let unsent = 0;
  let received = 0;

  const shut = (/** @type {number} */ code, /** @type {string} */ reason) => {
    try {
      session.close({ closeCode: code, reason });
    } catch {
      // Already closed, or never opened.
    }
  };
  // An error on one of the streams ends the session for us: no code came, so it counts as a lost line.
  const lost = (/** @type {unknown} */ error) => {
    const code = error instanceof WireError ? PROTOCOL_ERROR : NO_CODE;
    shut(code === PROTOCOL_ERROR ? PROTOCOL_ERROR : 0, String(error));
    ended({ code, reason: String(error) });
  };

  session.closed.then(
    (/** @type {any} */ info) => ended({ code: info?.closeCode || NO_CODE, reason: info?.reason ?? '' }),
    (/** @type {unknown} */ error) => ended({ code: NO_CODE, reason: String(error) }),
  );

  const open = async () => {
    await session.ready;
    // Latest wins: a tick that had to queue is not worth delivering. The option's name changed between drafts.
    for (const option of ['incomingMaxBufferedDatagrams', 'incomingHighWaterMark']) {
      if (option in session.datagrams) {
        session.datagrams[option] = 64;
        break;
      }
    }
    const stream = await session.createBidirectionalStream();
    control = stream.writable.getWriter();
    datagrams = (session.datagrams.createWritable?.() ?? session.datagrams.writable).getWriter();
    control?.closed.catch(() => {});
    datagrams?.closed.catch(() => {});

    const decoder = new FrameDecoder();
    const readControl = pump(stream.readable, (chunk) => {
      received += chunk.byteLength;
      decoder.push(chunk).forEach(handlers.onMessage);
    });
    // The server's half of the control stream ends only with the session, whose own close carries the code.
    readControl.then(() => session.closed).catch(lost);
    pump(session.datagrams.readable, handlers.onCompact).catch(lost);
  };

  return {
    kind: 'webtransport',
    opened: open(),
    get received() {
      return received;
    },
    send(json) {
      unsent += json.byteLength;
      if (unsent > MOST_UNSENT_BYTES) return lost(new Error('the server takes nothing any more'));
      control?.write(frame(json)).then(() => (unsent -= json.byteLength), lost);
    },
    sendCompact(bytes) {
      if (datagrams && (datagrams.desiredSize ?? 0) > 0) datagrams.write(bytes).catch(() => {});
    },
    close: shut,
  };
}

/**
 * @param {WebSocketEndpoint} endpoint
 * @param {import('./env.js').Env} env
 * @param {Handlers} handlers
 * @returns {Transport}
 */
export function openWebSocket({ url }, env, handlers) {
  /** @type {WebSocket} */
  const socket = new env.WebSocket(url);
  socket.binaryType = 'arraybuffer';
  const ended = once(handlers.onClose);
  const text = new TextDecoder();

  const opened = /** @type {Promise<void>} */ (
    new Promise((resolve, reject) => {
      socket.onopen = () => resolve();
      socket.onclose = ({ code, reason }) => {
        reject(new Error(`the WebSocket closed before it opened (${code})`));
        ended({ code, reason });
      };
    })
  );
  socket.onmessage = ({ data }) => {
    if (typeof data === 'string') handlers.onMessage(data);
    else handlers.onCompact(new Uint8Array(data));
  };

  const isOpen = () => socket.readyState === 1;
  return {
    kind: 'websocket',
    opened,
    received: 0,
    send(json) {
      if (!isOpen()) return;
      if (socket.bufferedAmount <= MOST_UNSENT_BYTES) return socket.send(text.decode(json));
      socket.close(4003, 'the server takes nothing any more');
      ended({ code: NO_CODE, reason: 'the server takes nothing any more' });
    },
    sendCompact(bytes) {
      if (!isOpen() || socket.bufferedAmount > MOST_UNSENT_BEFORE_COMPACT) return;
      socket.send(/** @type {Uint8Array<ArrayBuffer>} */ (bytes));
    },
    close: (code, reason) => socket.close(code, reason),
  };
}

/**
 * @param {ReadableStream<Uint8Array>} readable
 * @param {(chunk: Uint8Array) => void} take
 */
async function pump(readable, take) {
  const reader = readable.getReader();
  for (;;) {
    const { value, done } = await reader.read();
    if (done) return;
    take(value);
  }
}

/**
 * @template T
 * @param {(value: T) => void} fn
 */
function once(fn) {
  let called = false;
  return (/** @type {T} */ value) => {
    if (called) return;
    called = true;
    fn(value);
  };
}

/** @param {string} text */
function fromBase64(text) {
  return Uint8Array.from(atob(text), (char) => char.charCodeAt(0));
}
