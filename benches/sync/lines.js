/**
 * The network of a run: namespaces with a lossy line each (the subcommand `lines` of benches/loss), the server in one
 * of them, and programs in the others. All of it ends with `close`, and also when this process is killed: the program
 * that keeps the lines notices the end of its input, kills what is left in the namespaces and takes them away.
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';

const LAID_WITHIN_MS = 60_000;
const SERVES_WITHIN_MS = 30_000;
const ENDS_WITHIN_MS = 20_000;
const PORT = 4001;
const SECURE_PORT = 4433;

export class Network {
  #keeper;
  #words;
  /** @type {import('node:child_process').ChildProcess|null} */
  #server = null;
  #home = '';
  near;
  far;

  /**
   * @param {string} program  the bench `loss`
   * @param {{down: import('./plan.js').Way, up: import('./plan.js').Way}[]} lines
   * @param {number} seed
   */
  static async lay(program, lines, seed) {
    const spec = JSON.stringify({ seed, lines: lines.map(({ down, up }) => ({ down, up })) });
    // The line stands for cables: what it does late would be measured as ours. It takes little processor time.
    const keeper = spawn('chrt', ['-r', '5', program, 'lines', spec], { stdio: ['pipe', 'pipe', 'inherit'] });
    const words = createInterface({ input: keeper.stdout })[Symbol.asyncIterator]();
    const network = new Network(keeper, words);
    const { near, far } = JSON.parse(await network.#next('the lines', LAID_WITHIN_MS));
    network.near = near;
    network.far = far;
    return network;
  }

  /** @param {any} keeper @param {any} words */
  constructor(keeper, words) {
    this.#keeper = keeper;
    this.#words = words;
    keeper.stdin.on('error', () => {});
  }

  /** @param {string} what @param {number} ms @returns {Promise<string>} */
  async #next(what, ms) {
    const { value, done } = await within(this.#words.next(), ms, what);
    if (done) throw new Error(`${what}: the program that keeps them has ended (is this root, and is there /dev/net/tun?)`);
    return value;
  }

  /** https, because WebTransport wants a secure context; both kinds of browser are told to accept the certificate. */
  get origin() {
    return `https://${this.near.address}:${SECURE_PORT}`;
  }

  /** @param {string} binary @param {Record<string, string>} [env] */
  async serve(binary, env = {}) {
    this.#home = await mkdtemp(join(tmpdir(), 'sync-'));
    const args = ['--host', this.near.address, '--port', String(PORT), '--quic-port', String(SECURE_PORT), '--log-level', 'warn', '--data-dir', this.#home, '--certs-dir', this.#home];
    // Without what is set here, a Redis for instance.
    const server = spawn('ip', ['netns', 'exec', this.near.namespace, binary, ...args], { env: { PATH: process.env.PATH, ...env }, stdio: ['ignore', 'pipe', 'inherit'] });
    this.#server = server;
    await within(
      new Promise((resolve, reject) => {
        server.stdout.on('data', (chunk) => String(chunk).includes('WebTransport') && resolve(null));
        server.once('exit', (code) => reject(new Error(`the server ended with ${code} before it served`)));
      }),
      SERVES_WITHIN_MS,
      'the start of the server',
    );
  }

  /** Packets of each line so far: [to the far end, from it], each {sent, lost, dropped}. */
  async packets() {
    this.#keeper.stdin.write('\n');
    return JSON.parse(await this.#next('the counts of packets', 5000));
  }

  async close() {
    this.#server?.kill('SIGTERM');
    const gone = ended(this.#keeper);
    this.#keeper.stdin.end();
    await within(gone, ENDS_WITHIN_MS, 'taking the lines away').catch(() => this.#keeper.kill('SIGTERM'));
    if (this.#home) await rm(this.#home, { recursive: true, force: true });
  }
}

/** @param {import('node:child_process').ChildProcess} child */
export function ended(child) {
  return child.exitCode !== null || child.signalCode !== null ? Promise.resolve() : new Promise((resolve) => child.once('exit', resolve));
}

/**
 * @template T
 * @param {Promise<T>} promise
 * @param {number} ms
 * @param {string} what
 * @returns {Promise<T>}
 */
export async function within(promise, ms, what) {
  /** @type {any} */
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`${what}: not within ${ms / 1000} s`)), ms);
  });
  try {
    return await Promise.race([promise, /** @type {Promise<never>} */ (late)]);
  } finally {
    clearTimeout(timer);
  }
}
