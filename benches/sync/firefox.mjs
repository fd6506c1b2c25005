/**
 * Drives one Firefox from within its namespace, on orders of `tabs.js` (over the IPC channel of Node). It ends with its
 * parent.
 */
import puppeteer from '../../web-demo/node_modules/puppeteer-core/lib/esm/puppeteer/puppeteer-core.js';

const FIREFOX = process.env.FIREFOX ?? '/usr/bin/firefox-esr';
const PREFS = {
  'media.autoplay.default': 0,
  'media.autoplay.blocking_policy': 0,
  'media.volume_scale': '0.0',
  // A browser of a test has nothing to ask of its maker.
  'app.update.enabled': false,
  'browser.safebrowsing.update.enabled': false,
  'network.captive-portal-service.enabled': false,
  'network.connectivity-service.enabled': false,
};

let browser = null;
let context = null;
let page = null;
let settings = null;

const ACTS = {
  async start(given) {
    settings = given;
    browser = await puppeteer.launch({ browser: 'firefox', executablePath: FIREFOX, headless: true, acceptInsecureCerts: true, extraPrefsFirefox: PREFS });
    return `Firefox ${(await browser.version()).replace(/^\D*/, '')}`;
  },
  async open({ url }) {
    context = await browser.createBrowserContext();
    page = await context.newPage();
    await page.setViewport(settings.viewport);
    page.on('pageerror', (error) => console.error(`\nFirefox: ${error}`));
    await page.evaluateOnNewDocument(settings.probe);
    await page.goto(url, { timeout: 60_000 });
  },
  evaluate: ({ script }) => page.evaluate(script),
  async leave() {
    await context?.close();
    context = page = null;
  },
  close: () => browser?.close(),
};

process.on('message', async ({ id, act, ...detail }) => {
  try {
    process.send({ id, value: await ACTS[act](detail) });
  } catch (error) {
    process.send?.({ id, error: String(error?.stack ?? error) });
  }
});
process.on('disconnect', () => {
  void browser?.close().finally(() => process.exit());
  setTimeout(() => process.exit(1), 5000);
});
