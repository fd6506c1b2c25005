import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

/** The other's picture moves: new frames keep arriving. */
async function seesTheOther(tab, name) {
  await tab.until(`seeing ${name} move`, async (wanted) => {
    const tile = [...document.querySelectorAll('#tiles .tile')].find((each) => each.innerText.includes(wanted));
    const video = tile?.querySelector('video');
    if (!video?.srcObject || video.videoWidth === 0) return false;
    const frames = () => video.getVideoPlaybackQuality().totalVideoFrames;
    const before = frames();
    // With a limit: a call that is set up anew has another element, which the next look finds.
    await new Promise((resolve) => {
      video.requestVideoFrameCallback(() => video.requestVideoFrameCallback(resolve));
      setTimeout(resolve, 2000);
    });
    return frames() > before && !tile.classList.contains('no-video');
  }, name, { within: 30_000 });
}

describe('a call', () => {
  test('shows each the other, and hanging up ends it for both', async (t) => {
    const room = roomName('call');
    const ann = await browser.join(t, { server, room, name: 'Ann', transport: 'webtransport' });
    const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'websocket' });
    await ann.click('#call-button');
    await ann.until('the call being on', () => document.querySelector('#call-button').innerText.includes('Leave call'));
    assert.equal(await bob.page.locator('#tiles .tile').count(), 0, 'being in the room is not being in the call');
    await bob.click('#call-button');
    await seesTheOther(ann, 'Bob');
    await seesTheOther(bob, 'Ann');

    await bob.click('#call-button');
    await bob.until('no call', () => document.querySelector('#tiles').hidden);
    await ann.until('Bob being gone from the call', () => window.tandem.call.peers.size === 0 && document.querySelectorAll('#tiles .tile').length === 1);
    assert.equal(await bob.page.evaluate(() => window.tandem.call.local), null, 'the camera is off');

    // Once more, from the other side.
    await bob.click('#call-button');
    await seesTheOther(ann, 'Bob');
    await seesTheOther(bob, 'Ann');
    await ann.click('#call-button');
    await bob.until('Ann being gone from the call', () => window.tandem.call.peers.size === 0);
  });

  test('tells the others nothing more from a camera that is off', async (t) => {
    const room = roomName('camera');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const bob = await browser.join(t, { server, room, name: 'Bob' });
    await ann.click('#call-button');
    await bob.click('#call-button');
    await seesTheOther(bob, 'Ann');
    await ann.click('[data-tool=camera]');
    await ann.click('[data-tool=mic]');
    assert.deepEqual(
      await ann.page.evaluate(() => window.tandem.call.local.getTracks().map(({ enabled }) => enabled)),
      [false, false],
    );
  });

  test('ends for the others when a tab is closed for good', async (t) => {
    const room = roomName('goner');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const bob = await browser.join(t, { server, room, name: 'Bob' });
    await ann.click('#call-button');
    await bob.click('#call-button');
    await seesTheOther(ann, 'Bob');
    await bob.click('#leave-button');
    await ann.until('being alone in the call', () => window.tandem.call.peers.size === 0);
  });
});
