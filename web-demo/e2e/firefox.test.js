/** Firefox's differences: its own controls, its clock when it resists fingerprinting, an element that was emptied. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { roomName } from './support/browser.js';
import { Embedding } from './support/embedding.js';
import { openFirefox, waits } from './support/firefox.js';
import { Server } from './support/server.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());

describe('Firefox', () => {
  test('shows the film again to whoever leaves and enters the room again', async (t) => {
    const page = await openFirefox(t);
    const room = roomName('ff');
    await page.goto(`${server.origin}/#${new URLSearchParams({ room, name: 'Fay', autojoin: '1' })}`);
    for (let visit = 0; visit < 2; visit++) {
      await waits(page, 'the film', () => window.tandem?.room.state === 'joined' && document.querySelector('#video').readyState >= 2);
      await page.click('#leave-button');
      await waits(page, 'being outside', () => !document.querySelector('#landing').hidden && document.querySelector('#video').readyState === 0);
      await page.evaluate((name) => (document.querySelector('#join-room').value = name), room);
      await page.click('#join-submit');
    }
    await waits(page, 'the film', () => window.tandem?.room.state === 'joined' && document.querySelector('#video').readyState >= 2);
    await page.click('#play');
    await waits(page, 'the film playing', () => document.querySelector('#video').currentTime > 1);
  });

  test('lets its own controls command the room, and nothing else', async (t) => {
    const embedding = await Embedding.for(t, server.origin);
    const page = await openFirefox(t);
    await page.goto(`${embedding.origin}/?${new URLSearchParams({ room: roomName('ffhand'), name: 'Fay' })}`);
    await waits(page, 'being in the room', () => window.tandem?.room.state === 'joined');
    await page.evaluate((url) => window.tandem.room.setUrl(url, 0), `${embedding.origin}/film.webm`);
    await waits(page, 'the film', () => window.tandem.video.readyState >= 2);
    const { x, y, width, height } = await (await page.$('#video')).boundingBox();
    await page.mouse.click(x + width / 2, y + height / 3, { delay: 50 });
    await waits(page, 'playing', () => window.tandem.room.playback.playing && window.tandem.video.currentTime > 1);
    await page.mouse.click(x + width / 2, y + height - 20, { delay: 50 });
    await waits(page, 'playing further on', () => window.tandem.room.playback.playing && window.tandem.room.positionNow() > 40 && !window.tandem.video.paused);
    await page.mouse.click(x + 20, y + height - 20, { delay: 50 });
    await waits(page, 'standing', () => !window.tandem.room.wantsPlaying && window.tandem.video.paused);
    const commands = () => page.evaluate(() => window.tandem.said.filter(({ direction, type }) => direction === 'out' && ['PLAY_PAUSE', 'SEEK', 'SET_RATE'].includes(type)).map(({ type, control }) => control ?? type));
    assert.deepEqual(await commands(), ['play', 'SEEK', 'pause']);
    await page.evaluate(() => window.tandem.room.play());
    await waits(page, 'playing', () => !window.tandem.video.paused && window.tandem.sync.mode === 'idle');
    // Without a press; the activation of the last one is over.
    await waits(page, 'no activation', () => !navigator.userActivation.isActive);
    await page.evaluate(() => (window.tandem.video.currentTime += 1.1));
    await waits(page, 'being back', () => !window.tandem.video.paused && Math.abs(window.tandem.video.currentTime - window.tandem.room.positionNow()) < 0.3);
    assert.deepEqual(await commands(), ['play', 'SEEK', 'pause', 'play']);
  });

  test('with a coarse clock says how coarse it is', async (t) => {
    const page = await openFirefox(t, { 'privacy.resistFingerprinting': true });
    await page.goto(`${server.origin}/#${new URLSearchParams({ room: roomName('ffclock'), name: 'Fay', autojoin: '1' })}`);
    await waits(page, 'a clock', () => window.tandem?.room.clock.synced && window.tandem.room.clock.grain > 10);
    const { grain, error } = await page.evaluate(() => ({ grain: window.tandem.room.clock.grain, error: window.tandem.room.clock.error }));
    assert.ok(error >= grain, `error ${error} ms, grain ${grain} ms`);
  });
});
