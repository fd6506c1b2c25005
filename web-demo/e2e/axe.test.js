/** axe-core on every view, in both themes and sizes: its critical and serious findings fail the test. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';

const AXE = readFileSync(createRequire(import.meta.url).resolve('axe-core/axe.min.js'), 'utf8');

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

/** @param {import('playwright-core').Page} page @param {string} where */
async function assertAccessible(page, where) {
  // Evaluated by the driver, past the page's Content-Security-Policy.
  await page.evaluate(AXE);
  const faults = await page.evaluate(async () => {
    const { violations } = await window.axe.run(document, { resultTypes: ['violations'] });
    return violations
      .filter(({ impact }) => impact === 'critical' || impact === 'serious')
      .map(({ id, impact, nodes }) => `${impact} ${id}: ${nodes.slice(0, 3).map((node) => node.html.slice(0, 160)).join(' | ')}`);
  });
  assert.deepEqual(faults, [], where);
}

for (const [device, viewport] of [['phone', { width: 390, height: 844 }], ['desktop', { width: 1280, height: 860 }]]) {
  for (const colorScheme of ['light', 'dark']) {
    describe(`on a ${colorScheme} ${device}`, () => {
      test('every view has no critical or serious fault', async (t) => {
        const phone = device === 'phone';
        const context = { viewport, colorScheme, hasTouch: phone, isMobile: phone, reducedMotion: 'reduce' };
        const ann = await browser.person(t, { name: 'Ann', context, allowed: [/404/] });
        await ann.page.goto(server.origin);
        await assertAccessible(ann.page, 'the first screen');
        await ann.page.goto(`${server.origin}/nowhere`);
        await assertAccessible(ann.page, 'the page for what is not there');
        const room = roomName('axe');
        await ann.enter({ origin: server.origin, room });
        const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'websocket' });
        await bob.page.evaluate(() => window.tandem.room.chat('Hello'));
        await ann.film();
        await ann.until('the line', () => document.querySelector('#chat-list').textContent.includes('Hello'));
        for (const panel of phone ? ['people', 'chat', 'stats', 'log'] : ['chat', 'stats', 'log']) {
          await ann.choose(panel);
          await assertAccessible(ann.page, panel);
        }
        if (phone) await ann.choose('people');
        for (const [button, dialog] of [['#invite-button', '#invite-dialog'], ['#source-button', '#source-dialog']]) {
          await ann.click(button);
          await ann.until(dialog, (id) => document.querySelector(id).open, dialog);
          await assertAccessible(ann.page, dialog);
          await ann.page.keyboard.press('Escape');
        }
        await ann.click('[aria-label^="Actions for"]');
        await assertAccessible(ann.page, 'what a host can do');
        await ann.page.getByRole('button', { name: 'Ban', exact: true }).click();
        await assertAccessible(ann.page, 'the question before a ban');
        await ann.page.keyboard.press('Escape');
        await ann.click('#leave-button');
        await ann.until('the first screen', () => !document.querySelector('#landing').hidden);
      });
    });
  }
}
