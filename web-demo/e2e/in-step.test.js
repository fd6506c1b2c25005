import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

describe('two players of one film', () => {
  test('stay in step through play, pause, seek, rate and a reload, over WebTransport and WebSocket', async (t) => {
    const room = roomName('step');
    const ann = await browser.join(t, { server, room, name: 'Ann', transport: 'webtransport' });
    const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'websocket' });
    const both = [ann, bob];
    await Promise.all(both.map((tab) => tab.film()));
    assert.equal((await ann.room()).transport, 'webtransport');
    assert.equal((await bob.room()).transport, 'websocket');

    await ann.click('#play');
    await allInStep(both);

    await ann.click('#play');
    const [paused, pausedToo] = await allInStep(both, { playing: false });
    assert.ok(Math.abs(paused.position - pausedToo.position) < 0.05, 'a pause holds both at the same place');
    assert.ok(Math.abs(paused.framePosition - pausedToo.framePosition) <= 0.0401, 'or its neighbour, where the pause fell between two');

    await ann.page.locator('#scrub').fill('42');
    await Promise.all(both.map((tab) => tab.until('having gone to 0:42', () => Math.abs(document.querySelector('#video').currentTime - 42) < 0.05)));
    await ann.click('#play');
    await allInStep(both);

    await ann.page.evaluate(() => window.tandem.room.seek(70));
    await Promise.all(both.map((tab) => tab.until('being past 1:10', () => document.querySelector('#video').currentTime >= 70)));
    await allInStep(both);

    await ann.page.selectOption('#rate', '1.5');
    await allInStep(both, { rate: 1.5 });
    await ann.page.selectOption('#rate', '1');
    await allInStep(both, { rate: 1 });

    const before = await bob.room();
    await bob.page.reload();
    await bob.joined();
    await allInStep(both);
    const again = await bob.room();
    assert.equal(again.slot, before.slot, 'a reload keeps the seat');
    assert.equal(again.userId, before.userId);
    await ann.page.reload();
    await ann.joined();
    await allInStep(both);
    assert.equal((await ann.room()).isHost, true, 'a reload keeps the host');
  });

  test('who joins late is where the others are', async (t) => {
    const room = roomName('late');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    await ann.film();
    await ann.page.evaluate(() => window.tandem.room.seek(31));
    await ann.page.evaluate(() => window.tandem.room.play());
    await ann.inStep();
    const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'websocket' });
    const cid = await browser.join(t, { server, room, name: 'Cid', transport: 'webtransport' });
    const seen = await allInStep([ann, bob, cid]);
    for (const { position } of seen) assert.ok(position > 31);
  });

  test('the end of the film ends it for both, and play starts it over', async (t) => {
    const room = roomName('end');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const bob = await browser.join(t, { server, room, name: 'Bob' });
    await Promise.all([ann.film(), bob.film()]);
    const duration = await ann.page.evaluate(() => document.querySelector('#video').duration);
    await ann.page.evaluate((end) => window.tandem.room.seek(end - 1.5, { playing: true }), duration);
    for (const tab of [ann, bob]) await tab.until('the end', () => document.querySelector('#video').ended);
    await ann.click('#play');
    for (const tab of [ann, bob]) await tab.until('playing from the start', () => {
      const { currentTime, paused } = document.querySelector('#video');
      return !paused && currentTime > 0.1 && currentTime < 20;
    });
    await allInStep([ann, bob]);
  });
});

describe('the ready gate', () => {
  test('says whom the room waits for after a seek', async (t) => {
    const room = roomName('gate');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const bob = await browser.join(t, { server, room, name: 'Bob' });
    await Promise.all([ann.film(), bob.film()]);
    await ann.click('#play');
    await allInStep([ann, bob]);
    // Bob's line is slow: his READY doesn't come.
    await bob.page.evaluate(() => {
      window.tandem.room.sendReady = () => new Promise(() => {});
    });
    await ann.page.evaluate(() => window.tandem.room.seek(60, { playing: true }));
    await ann.until('the banner naming Bob', () => {
      const gate = document.querySelector('#gate');
      return !gate.hidden && gate.innerText.includes('Waiting for Bob');
    });
    await bob.until('the banner naming himself', () => document.querySelector('#gate').innerText.includes('Waiting for you'));
    assert.equal((await ann.see()).paused, true, 'nobody plays on alone');
    assert.match(await ann.page.getAttribute('#play', 'aria-label'), /^Pause/, 'the room means to play');
    // Seeking again, from there, is no pause: the room plays on once the gate's time is over.
    await ann.press('ArrowRight');
    await ann.until('the gate of the second seek', () => window.tandem.room.gate?.targetTime > 60);
    await ann.until('playing on', () => window.tandem.room.playback.playing);
    await ann.page.evaluate(() => window.tandem.room.seek(60));
    await ann.until('the banner', () => !document.querySelector('#gate').hidden);
    await ann.click('#play');
    for (const tab of [ann, bob]) await tab.until('the banner gone, and the film standing', () => document.querySelector('#gate').hidden && !window.tandem.room.wantsPlaying);
  });
});
