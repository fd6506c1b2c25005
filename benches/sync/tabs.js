/**
 * Browsers at the far ends: one a namespace, with one page at a time, whatever the browser. Chromium is driven from
 * here, through its pipe. Firefox is driven over a socket, which can't leave its namespace, so its driver
 * (`firefox.mjs`) is a process in there.
 *
 * @typedef {object} Seat
 * @property {(url: string) => Promise<void>} open  in a fresh context: a newcomer
 * @property {(script: string) => Promise<any>} evaluate
 * @property {() => Promise<void>} leave  closes the page and its context
 * @property {() => Promise<void>} close
 * @property {string} version
 */
import { spawn } from 'node:child_process';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { chromium } from '../../web-demo/node_modules/playwright-core/index.mjs';
import { ended, within } from './lines.js';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--autoplay-policy=no-user-gesture-required', '--mute-audio', '--ignore-certificate-errors',
];
const FIREFOX_DRIVER = fileURLToPath(new URL('./firefox.mjs', import.meta.url));
export const VIEWPORT = { width: 480, height: 420 };
const STARTS_WITHIN_MS = 60_000;
const ANSWERS_WITHIN_MS = 30_000;
const LOOK_EVERY_MS = 100;

/**
 * @param {import('./plan.js').Kind['browser']} browser
 * @param {string} namespace
 * @param {string} probe
 * @returns {Promise<Seat>}
 */
export function startBrowser(browser, namespace, probe) {
  return browser === 'chromium' ? ChromiumSeat.start(namespace, probe) : FirefoxSeat.start(namespace, probe);
}

class ChromiumSeat {
  #browser;
  #folder;
  #probe;
  /** @type {any} */
  #page = null;

  /** @param {string} namespace @param {string} probe */
  static async start(namespace, probe) {
    const folder = await mkdtemp(join(tmpdir(), 'sync-'));
    const executablePath = join(folder, 'chromium');
    await writeFile(executablePath, `#!/bin/sh\nexec ip netns exec ${namespace} ${CHROMIUM} "$@" 2>/dev/null\n`, { mode: 0o755 });
    // The signals are for run.mjs, which ends everything in order.
    const launch = chromium.launch({ executablePath, args: FLAGS, handleSIGINT: false, handleSIGTERM: false, handleSIGHUP: false });
    return new ChromiumSeat(await within(launch, STARTS_WITHIN_MS, 'the start of Chromium'), folder, probe);
  }

  /** @param {any} browser @param {string} folder @param {string} probe */
  constructor(browser, folder, probe) {
    this.#browser = browser;
    this.#folder = folder;
    this.#probe = probe;
  }

  get version() {
    return `Chromium ${this.#browser.version()}`;
  }

  /** @param {string} url */
  async open(url) {
    const context = await this.#browser.newContext({ viewport: VIEWPORT, ignoreHTTPSErrors: true });
    this.#page = await context.newPage();
    this.#page.on('pageerror', (/** @type {Error} */ error) => console.error(`\n${error}`));
    await this.#page.addInitScript(this.#probe);
    await this.#page.goto(url, { timeout: STARTS_WITHIN_MS });
  }

  /** @param {string} script */
  evaluate(script) {
    return within(this.#page.evaluate(script), ANSWERS_WITHIN_MS, `an answer of Chromium to ${script.slice(0, 80)}`);
  }

  async leave() {
    await this.#page?.context().close();
    this.#page = null;
  }

  async close() {
    await within(this.#browser.close(), ANSWERS_WITHIN_MS, 'the end of Chromium').catch(() => {});
    await rm(this.#folder, { recursive: true, force: true });
  }
}

class FirefoxSeat {
  #driver;
  #next = 0;
  /** @type {Map<number, {resolve: (value: any) => void, reject: (error: Error) => void}>} */
  #waiting = new Map();
  version = 'Firefox';

  /** @param {string} namespace @param {string} probe */
  static async start(namespace, probe) {
    const seat = new FirefoxSeat(spawn('ip', ['netns', 'exec', namespace, process.execPath, FIREFOX_DRIVER], { stdio: ['ignore', 'inherit', 'inherit', 'ipc'] }));
    seat.version = await seat.#ask('start', { probe, viewport: VIEWPORT }, STARTS_WITHIN_MS);
    return seat;
  }

  /** @param {import('node:child_process').ChildProcess} driver */
  constructor(driver) {
    this.#driver = driver;
    driver.on('message', (/** @type {any} */ { id, value, error }) => {
      const waiting = this.#waiting.get(id);
      this.#waiting.delete(id);
      if (error) waiting?.reject(new Error(`Firefox: ${error}`));
      else waiting?.resolve(value);
    });
    driver.once('exit', (code) => {
      for (const { reject } of this.#waiting.values()) reject(new Error(`Firefox's driver ended with ${code}`));
      this.#waiting.clear();
    });
  }

  /** @param {string} act @param {any} detail @param {number} ms */
  #ask(act, detail = {}, ms = ANSWERS_WITHIN_MS) {
    const id = this.#next++;
    const answer = new Promise((resolve, reject) => this.#waiting.set(id, { resolve, reject }));
    this.#driver.send({ id, act, ...detail });
    return within(answer, ms, `an answer of Firefox to ${act}`);
  }

  /** @param {string} url */
  async open(url) {
    await this.#ask('open', { url }, STARTS_WITHIN_MS);
  }

  /** @param {string} script */
  evaluate(script) {
    return this.#ask('evaluate', { script });
  }

  async leave() {
    await this.#ask('leave');
  }

  async close() {
    if (this.#driver.connected) await this.#ask('close').catch(() => {});
    this.#driver.kill('SIGTERM');
    await within(ended(this.#driver), 5000, "the end of Firefox's driver").catch(() => this.#driver.kill('SIGKILL'));
  }
}

/**
 * Waits until a condition holds in the page.
 * @param {Seat} seat
 * @param {string} what
 * @param {string} condition
 */
export async function waitFor(seat, what, condition, ms = 45_000) {
  const until = performance.now() + ms;
  while (!(await seat.evaluate(`!!(${condition})`))) {
    if (performance.now() > until) throw new Error(`${what}: not within ${ms / 1000} s`);
    await pause(LOOK_EVERY_MS);
  }
}
