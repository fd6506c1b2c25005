/** Several tandems over one Redis and one PostgreSQL of the test's own, and a balancer in front of them. */
import { execFile, spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { chown, mkdtemp, readFile, readdir, rm } from 'node:fs/promises';
import { connect, createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { Server } from './server.js';
import { until } from './until.js';

const run = promisify(execFile);
const STORES = '/usr/lib/postgresql';
const USER = 'tandem';

/** Redis and PostgreSQL, killed by the kernel when this process dies. */
export class Stores {
  #dirs = [];
  #children = [];
  env = {};

  /** @param {import('node:test').TestContext} t */
  static async for(t) {
    const stores = new Stores();
    t.after(() => stores.remove());
    const [redis, database] = await Promise.all([stores.#redis(), stores.#postgres()]);
    stores.env = { REDIS_URL: redis, DATABASE_URL: database, POSTGRES_POOL_SIZE: '4' };
    return stores;
  }

  async #redis() {
    const [port, dir] = [await freePort(), await this.#directory('redis')];
    const program = process.env.TANDEM_TEST_REDIS_SERVER ?? 'redis-server';
    this.#start([program, '--port', String(port), '--bind', '127.0.0.1', '--dir', dir, '--save', ''], 'redis-server');
    await until('Redis answering', () => answers(port));
    return `redis://127.0.0.1:${port}`;
  }

  async #postgres() {
    const versions = existsSync(STORES) ? await readdir(STORES) : [];
    const newest = versions.map(Number).filter(Boolean).sort((a, b) => b - a)[0];
    if (!newest) throw new Error('PostgreSQL is missing; install it with: apt-get install postgresql');
    const tool = (name) => join(STORES, String(newest), 'bin', name);
    const [port, dir] = [await freePort(), await this.#directory('postgres')];
    // PostgreSQL refuses to run as root.
    let as = [];
    if (process.getuid?.() === 0) {
      const [, , uid, gid] = /** @type {string} */ ((await readFile('/etc/passwd', 'utf8')).split('\n').find((line) => line.startsWith('postgres:'))).split(':');
      await chown(dir, Number(uid), Number(gid));
      as = [`--reuid=${uid}`, `--regid=${gid}`, '--clear-groups'];
    }
    const data = join(dir, 'data');
    await run('setpriv', [...as, tool('initdb'), '--username', USER, '--auth=trust', '--no-sync', '--pgdata', data], { cwd: dir });
    this.#start([tool('postgres'), '-D', data, '-p', String(port), '-c', 'listen_addresses=127.0.0.1', '-c', 'unix_socket_directories=', '-c', 'fsync=off'], 'postgresql', as, dir);
    await until('PostgreSQL answering', () => run(tool('pg_isready'), ['--quiet', '--host=127.0.0.1', '--port', String(port)]).then(() => true, () => false));
    return `postgres://${USER}@127.0.0.1:${port}/postgres`;
  }

  #start(command, install, as = [], cwd = undefined) {
    const child = spawn('setpriv', [...as, '--pdeathsig', 'KILL', ...command], { stdio: 'ignore', cwd });
    child.once('error', () => { throw new Error(`setpriv or ${command[0]} is missing; install it with: apt-get install util-linux ${install}`); });
    this.#children.push(child);
  }

  async #directory(name) {
    const dir = await mkdtemp(join(tmpdir(), `tandem-e2e-${name}-`));
    this.#dirs.push(dir);
    return dir;
  }

  async remove() {
    for (const child of this.#children) {
      if (child.exitCode !== null || child.signalCode !== null) continue;
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
    }
    for (const dir of this.#dirs) await rm(dir, { recursive: true, force: true, maxRetries: 5 });
  }
}

/** A load balancer: a connection goes to the preferred node, or to one that answers. */
export class Balancer {
  #nodes;
  #listener = createServer({ pauseOnConnect: true }, (client) => {
    client.on('error', () => client.destroy());
    this.#serve(client);
  });
  /** @type {Server} */
  preferred;
  /** How many connections each node got. @type {Map<Server, number>} */
  served = new Map();

  /** @param {Server[]} nodes */
  constructor(nodes) {
    this.#nodes = nodes;
    this.preferred = nodes[0];
  }

  /** @param {import('node:test').TestContext} t @param {Server[]} nodes */
  static async for(t, nodes) {
    const balancer = new Balancer(nodes);
    await new Promise((resolve) => balancer.#listener.listen(0, '127.0.0.1', () => resolve(undefined)));
    t.after(() => balancer.#listener.close());
    return balancer;
  }

  get origin() {
    return `http://localhost:${/** @type {import('node:net').AddressInfo} */ (this.#listener.address()).port}`;
  }

  #serve(client, left = [this.preferred, ...this.#nodes.filter((node) => node !== this.preferred)]) {
    const [node, ...others] = left;
    if (!node || client.destroyed) return client.destroy();
    const server = connect(node.port, '127.0.0.1');
    const refused = () => this.#serve(client, others);
    server.once('error', refused);
    server.once('connect', () => {
      server.off('error', refused);
      this.served.set(node, (this.served.get(node) ?? 0) + 1);
      for (const [one, other] of [[client, server], [server, client]]) {
        one.on('error', () => other.destroy());
        one.on('close', () => other.destroy());
      }
      client.pipe(server).pipe(client);
    });
  }
}

/**
 * Two nodes with addresses of their own, which name each other.
 * @param {import('node:test').TestContext} t
 */
export async function twoNodes(t) {
  const stores = await Stores.for(t);
  const nodes = await Promise.all(['one', 'two'].map(async (name) => {
    const port = await freePort();
    const node = new Server({ ...stores.env, NODE_ID: name, NODE_URL: `http://localhost:${port}` });
    node.port = port;
    t.after(() => node.remove());
    await node.start();
    return node;
  }));
  const others = async (node) => (await (await fetch(`${node.origin}/api/transports`)).json()).nodes?.length;
  await until('the nodes naming each other', async () => (await Promise.all(nodes.map(others))).every((count) => count === 1));
  return nodes;
}

/** A port that is free at the moment. */
export async function freePort() {
  const listener = createServer();
  await new Promise((resolve) => listener.listen(0, '127.0.0.1', () => resolve(undefined)));
  const { port } = /** @type {import('node:net').AddressInfo} */ (listener.address());
  await new Promise((resolve) => listener.close(resolve));
  return port;
}

function answers(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1', () => socket.write('PING\r\n'));
    socket.once('data', (data) => { socket.destroy(); resolve(data.toString().startsWith('+PONG')); });
    socket.once('error', () => resolve(false));
  });
}
