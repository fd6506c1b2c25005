import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

describe('with the keyboard alone', () => {
  test('one joins, plays, chats and leaves', async (t) => {
    const room = roomName('keys');
    const ann = await browser.person(t, { name: 'Ann' });
    const { page } = ann;
    await page.goto(`${server.origin}/#room=${room}`);
    await ann.until('the name field having the focus', () => document.activeElement?.id === 'join-name');
    await page.keyboard.type('Ann');
    await page.keyboard.press('Enter');
    await ann.joined();
    await ann.film();
    await page.keyboard.press('Space');
    await ann.inStep();
    await page.keyboard.press('k');
    await ann.inStep({ playing: false });
    await page.keyboard.press('m');
    await ann.until('silence', () => document.querySelector('#video').muted);
    await page.keyboard.press('c');
    await page.keyboard.type('k m space');
    await page.keyboard.press('Enter');
    await ann.until('the message', () => document.querySelector('#chat-list').innerText.includes('k m space'));
    assert.equal((await ann.see()).playback.playing, false, 'what is typed is no command');
    await page.keyboard.press('Escape');
    await page.keyboard.press('?');
    await ann.until('the sheet of keys', () => document.querySelector('#shortcuts-dialog').open);
    await page.keyboard.press('Escape');
    await ann.until('no sheet', () => !document.querySelector('#shortcuts-dialog').open);
    for (let presses = 0; presses < 60; presses++) {
      if (await page.evaluate(() => document.activeElement?.id === 'leave-button')) break;
      await page.keyboard.press('Tab');
    }
    await page.keyboard.press('Enter');
    await ann.until('the first screen', () => !document.querySelector('#landing').hidden);
  });
});

describe('the join form', () => {
  test('says what is wrong with what was typed', async (t) => {
    const ann = await browser.person(t, { name: 'Ann' });
    await ann.page.goto(server.origin);
    await ann.page.fill('#join-name', '');
    await ann.click('#join-submit');
    assert.equal(await ann.text('#join-error'), 'Tell the others who you are.');
    await ann.page.fill('#join-name', 'Ann');
    await ann.page.fill('#join-room', '\u200b');
    await ann.click('#join-submit');
    assert.match(await ann.text('#join-error'), /something in it that can be seen/);
  });

  test('of a guest with a link asks for a name only, within the first screen of a phone', async (t) => {
    const room = roomName('guest form');
    await browser.join(t, { server, room, name: 'Ann', pin: 'swordfish' });
    const bob = await browser.person(t, { name: 'Bob', context: { viewport: { width: 360, height: 640 }, hasTouch: true, isMobile: true } });
    await bob.page.goto(`${server.origin}/#room=${encodeURIComponent(room)}`);
    for (const field of ['#join-room', '#join-pin', 'input[name=transport]']) assert.equal(await bob.page.locator(field).first().isVisible(), false, field);
    const button = await bob.page.locator('#join-submit').boundingBox();
    assert.ok(button.y + button.height <= 640, `the button ends at ${button.y + button.height} of 640`);
    await bob.click('#join-reveal');
    assert.equal(await bob.page.inputValue('#join-room'), room, 'the rest of the form is one click away');
    await bob.page.reload();
    await bob.page.fill('#join-name', 'Bob');
    await bob.click('#join-submit');
    await bob.until('being asked for the PIN, because the room has one', () => document.querySelector('#pin-dialog').open);
    await bob.page.fill('#pin-input', 'swordfish');
    await bob.click('#pin-submit');
    await bob.joined();
  });

  test('of a guest with a damaged link says so, and suggests no room', async (t) => {
    const bob = await browser.person(t, { name: 'Bob' });
    await bob.page.goto(`${server.origin}/#room=%E0%A4%A`);
    await bob.until('being told', () => document.querySelector('#join-error').dataset.code === 'DAMAGED');
    assert.equal(await bob.page.inputValue('#join-room'), '');
  });
});

for (const [device, viewport] of [['phone', { width: 390, height: 844 }], ['small phone', { width: 320, height: 640 }], ['desktop', { width: 1440, height: 900 }]]) {
  describe(`on a ${device}`, () => {
    test('nothing is wider than the screen', async (t) => {
      const room = roomName('width');
      const context = { viewport, hasTouch: device !== 'desktop', isMobile: device !== 'desktop' };
      const ann = await browser.person(t, { name: 'Ann', context });
      const fits = async (where) => {
        const { wide, inner, culprits } = await ann.page.evaluate(() => ({
          wide: document.documentElement.scrollWidth,
          inner: document.documentElement.clientWidth,
          culprits: [...document.querySelectorAll('body *')]
            .filter((element) => element.getBoundingClientRect().right > innerWidth + 1)
            .map((element) => element.id || element.className).slice(0, 8),
        }));
        assert.ok(wide <= inner, `${where}: ${wide} > ${inner}: ${culprits}`);
      };
      await ann.page.goto(server.origin);
      await fits('the first screen');
      await ann.page.goto('about:blank');
      await ann.enter({ origin: server.origin, room });
      const bob = await browser.join(t, { server, room, name: 'A very long name that goes on and on', transport: 'websocket' });
      await bob.page.evaluate(() => window.tandem.room.chat('w'.repeat(500)));
      await ann.film();
      await ann.click('#play');
      await ann.inStep();
      const [stage, last] = await Promise.all(['#stage', '#fullscreen'].map((selector) => ann.page.locator(selector).boundingBox()));
      assert.ok(last.x + last.width <= stage.x + stage.width, `the last control ends at ${last.x + last.width} of ${stage.width}`);
      for (const panel of device === 'desktop' ? ['chat', 'stats', 'log'] : ['people', 'chat', 'stats', 'log']) {
        await ann.choose(panel);
        await fits(panel);
      }
      await ann.click('#call-button');
      await ann.until('the call', () => !document.querySelector('#tiles').hidden);
      await fits('the call');
      await ann.click('#invite-button');
      await ann.until('the invitation', () => document.querySelector('#invite-dialog').open);
      await fits('the invitation');
    });
  });
}

describe('the film', () => {
  test('of a bad address is refused in the form, and one that does not play is said on the stage', async (t) => {
    const ann = await browser.join(t, { server, room: roomName('film'), name: 'Ann', allowed: [/404/] });
    await ann.film();
    await ann.click('#source-button');
    await ann.page.fill('#source-url', 'http://example.org/film.webm');
    await ann.page.locator('#source-form button[type=submit]').click();
    assert.match(await ann.text('#source-error'), /https/);
    await ann.page.fill('#source-url', `${server.origin}/media/none.webm`);
    await ann.page.locator('#source-form button[type=submit]').click();
    await ann.until('the stage saying so', () => !document.querySelector('#stage-error').hidden);
    await ann.click('#source-button');
    await ann.click('#source-test');
    await ann.film();
    assert.equal(await ann.page.locator('#source-dialog').isVisible(), false, 'one click loads the test film');
    await ann.until('the stage being free again', () => document.querySelector('#stage-error').hidden);
  });
});
