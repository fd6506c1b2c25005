/** Networks between a browser and a server: paths that change their address, and paths that die without a word. */
import { createSocket } from 'node:dgram';
import { connect, createServer } from 'node:net';

/**
 * A NAT for QUIC: each client address gets a socket of its own towards the server. `rebind` gives all of them new
 * ones, as a NAT does that has forgotten its table; `cut` swallows what the present clients send and get.
 */
export class UdpRelay {
  #front = createSocket('udp4');
  /** @type {Map<string, {client: import('node:dgram').RemoteInfo, back: import('node:dgram').Socket, cut: boolean}>} */
  #paths = new Map();
  #target;

  /** @param {number} target port of the server */
  constructor(target) {
    this.#target = target;
    this.#front.on('message', (packet, client) => {
      const path = this.#pathOf(client);
      if (!path.cut) path.back.send(packet, this.#target, '127.0.0.1');
    });
  }

  /** @param {import('node:test').TestContext} t @param {number} target */
  static async for(t, target) {
    const relay = new UdpRelay(target);
    await new Promise((resolve) => relay.#front.bind(0, '127.0.0.1', () => resolve(undefined)));
    t.after(() => relay.close());
    return relay;
  }

  get port() {
    return this.#front.address().port;
  }

  #pathOf(client) {
    const key = `${client.address}:${client.port}`;
    const known = this.#paths.get(key);
    if (known) return known;
    const path = { client, back: this.#socketFor(client, () => path), cut: false };
    this.#paths.set(key, path);
    return path;
  }

  #socketFor(client, pathOf) {
    const socket = createSocket('udp4');
    socket.on('message', (packet) => pathOf().cut || this.#front.send(packet, client.port, client.address));
    socket.on('error', () => {});
    return socket;
  }

  /** @returns {number} how many clients have another address now, as the server sees it */
  rebind() {
    for (const path of this.#paths.values()) {
      path.back.close();
      path.back = this.#socketFor(path.client, () => path);
    }
    return this.#paths.size;
  }

  cut() {
    for (const path of this.#paths.values()) path.cut = true;
    return this.#paths.size;
  }

  close() {
    for (const { back } of this.#paths.values()) back.close();
    this.#front.close();
  }
}

/** A path for TCP: `cut` leaves the present connections open, and passes nothing on any more. */
export class TcpRelay {
  /** @type {Set<import('node:net').Socket>} */
  #sockets = new Set();
  #listener;

  /** @param {number} target port of the server */
  constructor(target) {
    this.#listener = createServer((client) => {
      const server = connect(target, '127.0.0.1');
      for (const [one, other] of [[client, server], [server, client]]) {
        this.#sockets.add(one);
        one.on('error', () => other.destroy());
        one.on('close', () => {
          this.#sockets.delete(one);
          other.destroy();
        });
      }
      client.pipe(server).pipe(client);
    });
  }

  /** @param {import('node:test').TestContext} t @param {number} target */
  static async for(t, target) {
    const relay = new TcpRelay(target);
    await new Promise((resolve) => relay.#listener.listen(0, '127.0.0.1', () => resolve(undefined)));
    t.after(() => relay.close());
    return relay;
  }

  get port() {
    return /** @type {import('node:net').AddressInfo} */ (this.#listener.address()).port;
  }

  cut() {
    for (const socket of this.#sockets) socket.unpipe().pause();
    return this.#sockets.size;
  }

  close() {
    for (const socket of this.#sockets) socket.destroy();
    this.#listener.close();
  }
}
