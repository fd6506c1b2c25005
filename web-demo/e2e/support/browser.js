/** One Chromium for a test file. Every tab has its own context, so that each is a person with separate storage. */
import { existsSync } from 'node:fs';
import { after } from 'node:test';
import { chromium } from 'playwright-core';
import { Tab } from './tab.js';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** No --disable-quic among them: WebTransport is what is tested. */
export const FLAGS = [
  '--no-sandbox',
  '--disable-gpu',
  '--no-first-run',
  '--disable-background-networking',
  '--disable-component-update',
  '--disable-sync',
  '--autoplay-policy=no-user-gesture-required',
  '--use-fake-device-for-media-stream',
  '--use-fake-ui-for-media-stream',
];

let nextRoom = 1;

export class Browser {
  #browser;
  #flags;

  #launch;

  /** @param {string[]} [flags] more of them @param {import('playwright-core').LaunchOptions} [launch] */
  constructor(flags = [], launch = {}) {
    this.#flags = flags;
    this.#launch = launch;
    after(() => this.close());
  }

  async #running() {
    if (!existsSync(CHROMIUM)) throw new Error(`${CHROMIUM} is missing; install it with: apt-get install chromium (or set CHROMIUM)`);
    this.#browser ??= chromium.launch({ executablePath: CHROMIUM, args: [...FLAGS, ...this.#flags], ...this.#launch });
    return this.#browser;
  }

  /** Process ids of its renderers. The network stack is another process. */
  async renderers() {
    return (await this.#processInfo()).filter(({ type }) => type === 'renderer').map(({ id }) => id);
  }

  /** Process ids of all that it consists of. */
  async processes() {
    return (await this.#processInfo()).map(({ id }) => id);
  }

  async #processInfo() {
    const cdp = await (await this.#running()).newBrowserCDPSession();
    return (await cdp.send('SystemInfo.getProcessInfo')).processInfo;
  }

  async close() {
    await (await this.#browser)?.close();
  }

  /**
   * A person at a page that is in no room yet. When the test ends, the page is closed and its console checked.
   * @param {import('node:test').TestContext} t
   */
  async person(t, { name = 'Ann', context: options = {}, allowed = [] } = {}) {
    const browser = await this.#running();
    const context = await browser.newContext({
      viewport: { width: 1100, height: 760 },
      permissions: ['camera', 'microphone', 'clipboard-write'],
      ...options,
    });
    const tab = await Tab.open(context, { name, allowed });
    t.after(async () => {
      await context.close();
      tab.assertClean();
    });
    return tab;
  }

  /**
   * A person who is in a room. `quicPort` is that of a relay in front of the server.
   * @param {import('node:test').TestContext} t
   */
  async join(t, { server, room, name, transport = 'auto', pin, origin, quicPort, ...rest }) {
    const tab = await this.person(t, { name, ...rest });
    if (quicPort !== undefined) await tab.seesQuicOn(quicPort);
    await tab.enter({ origin: origin ?? server.origin, room, transport, pin });
    return tab;
  }
}

/** A room that no other test uses. */
export function roomName(about = 'room') {
  return `${about}-${process.pid}-${nextRoom++}`;
}
