/** A tandem of the test's own: its ports, its data, its certificate. */
import { spawn } from 'node:child_process';
import { existsSync } from 'node:fs';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const BUILT = fileURLToPath(new URL('../../../target/debug/tandem', import.meta.url));
const STARTS_WITHIN_MS = 20_000;
const STOPS_WITHIN_MS = 20_000;

export class Server {
  #binary = process.env.TANDEM_BIN ?? BUILT;
  #env;
  #dir = '';
  #process = null;
  #said = '';
  port = 0;
  quicPort = 0;

  constructor(env = {}) {
    this.#env = env;
  }

  /** @param {import('node:test').TestContext} t */
  static async for(t, env = {}) {
    const server = new Server(env);
    t.after(() => server.remove());
    await server.start();
    return server;
  }

  get origin() {
    return `http://localhost:${this.port}`;
  }

  get secureOrigin() {
    return `https://localhost:${this.quicPort}`;
  }

  get pid() {
    return this.#process?.pid;
  }

  /** Starts on free ports the first time, later on the same ones with the same data. */
  async start() {
    if (!existsSync(this.#binary)) {
      throw new Error(`${this.#binary} is missing; build it with: cargo build --bin tandem (or set TANDEM_BIN)`);
    }
    this.#dir ||= await mkdtemp(join(tmpdir(), 'tandem-e2e-'));
    const child = spawn(this.#binary, [], {
      env: {
        PATH: process.env.PATH,
        PORT: String(this.port),
        QUIC_PORT: String(this.quicPort),
        DATA_DIR: this.#dir,
        CERTS_DIR: this.#dir,
        LOG_LEVEL: 'info',
        LOG_FORMAT: 'pretty',
        ...this.#env,
      },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    this.#process = child;
    let said = '';
    await new Promise((resolve, reject) => {
      const timer = setTimeout(() => reject(new Error(`tandem did not start in time:\n${said}`)), STARTS_WITHIN_MS);
      const hear = (chunk) => {
        said += chunk;
        this.#said = (this.#said + chunk).slice(-20_000);
        const tcp = /http:\/\/localhost:(\d+)/.exec(said);
        const quic = /HTTPS are on \S+:(\d+)/.exec(said);
        if (!tcp || !quic) return;
        this.port = Number(tcp[1]);
        this.quicPort = Number(quic[1]);
        clearTimeout(timer);
        resolve();
      };
      child.stdout.on('data', hear);
      child.stderr.on('data', (chunk) => {
        this.#said = (this.#said + chunk).slice(-20_000);
        if (child.exitCode === null) said += chunk;
      });
      child.once('exit', (code) => {
        clearTimeout(timer);
        reject(new Error(`tandem ended with ${code} before it served:\n${said}`));
      });
    });
  }

  /** Its output, newest last. */
  get log() {
    return this.#said;
  }

  /** @param {NodeJS.Signals} signal */
  async stop(signal = 'SIGTERM') {
    const child = this.#process;
    if (!child || child.exitCode !== null || child.signalCode !== null) return;
    const gone = new Promise((resolve) => child.once('exit', resolve));
    child.kill(signal);
    const timer = setTimeout(() => child.kill('SIGKILL'), STOPS_WITHIN_MS);
    await gone;
    clearTimeout(timer);
    this.#process = null;
  }

  async remove() {
    await this.stop('SIGKILL');
    if (this.#dir) await rm(this.#dir, { recursive: true, force: true });
  }
}
