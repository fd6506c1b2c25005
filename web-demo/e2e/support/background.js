/**
 * A Chromium whose tabs are in the background when another one is in front, so that they are hidden, throttled and can
 * be frozen. Playwright's pages always believe that they are seen; puppeteer's don't.
 */
import puppeteer from 'puppeteer-core';
import { FLAGS } from './browser.js';
import { until } from './until.js';

const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';

/** A tab with as much of `Tab` as a test of hidden pages needs. */
export class BackgroundTab {
  name;
  page;
  #browser;
  #cdp;

  /** @param {import('node:test').TestContext} t */
  static async enter(t, { origin, room, name, transport }) {
    const tab = new BackgroundTab();
    tab.name = name;
    tab.#browser = await puppeteer.launch({ executablePath: CHROMIUM, headless: true, args: FLAGS });
    t.after(() => tab.#browser.close());
    tab.page = await tab.#browser.newPage();
    tab.#cdp = await tab.page.createCDPSession();
    await tab.page.goto(`${origin}/#${new URLSearchParams({ room, name, transport, autojoin: '1' })}`);
    await tab.until('being in the room', () => window.tandem?.room.state === 'joined');
    return tab;
  }

  until(what, look, argument, options) {
    return until(`${this.name}: ${what}`, () => this.page.evaluate(look, argument), options);
  }

  film() {
    return this.until('the film being loaded', () => document.querySelector('#video').readyState >= 3);
  }

  /** Playing, and where the room is. */
  inStep() {
    return this.until('being in step', () => {
      const { room } = window.tandem;
      const { currentTime, paused } = document.querySelector('#video');
      return room.state === 'joined' && room.playback.playing && !paused && Math.abs(currentTime - room.positionNow()) < 0.25;
    });
  }

  /** Another tab comes to the front. */
  async hide() {
    await (await this.#browser.newPage()).bringToFront();
    await this.until('being hidden', () => document.visibilityState === 'hidden');
  }

  async show() {
    await this.page.bringToFront();
    await this.until('being seen', () => document.visibilityState === 'visible');
  }

  /** Only a hidden page can be frozen. */
  freeze() {
    return this.#cdp.send('Page.setWebLifecycleState', { state: 'frozen' });
  }

  unfreeze() {
    return this.#cdp.send('Page.setWebLifecycleState', { state: 'active' });
  }
}
