/** A Firefox of a test's own, driven by WebDriver BiDi. */
import { existsSync } from 'node:fs';
import puppeteer from 'puppeteer-core';
import { until } from './until.js';

const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';
const PREFS = { 'media.autoplay.default': 0, 'media.autoplay.blocking_policy': 0 };

/** A page in a separate Firefox. @param {import('node:test').TestContext} t */
export async function openFirefox(t, prefs = {}) {
  if (!existsSync(FIREFOX)) throw new Error(`${FIREFOX} is missing; install it with: apt-get install firefox-esr (or set FIREFOX)`);
  const browser = await puppeteer.launch({ browser: 'firefox', executablePath: FIREFOX, headless: true, extraPrefsFirefox: { ...PREFS, ...prefs } });
  t.after(() => browser.close());
  return browser.newPage();
}

/** Waits for a condition in the page. */
export const waits = (page, what, look) => until(`Firefox: ${what}`, () => page.evaluate(look), { within: 30_000, show: () => page.evaluate(() => `\n${document.body.innerText.slice(0, 500)}`) });
