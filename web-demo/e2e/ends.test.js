/** How sessions end: each final closing code reaches the page that it is for, over WebTransport too. */
import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';

/** One address joins here more often than the limits allow. */
const server = new Server({ RATE_LIMITS: 'off' });
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

/** Chromium lost 8 of 24 codes of kicks: 30 of 30 can't be chance. */
const TIMES = 30;

/** @param {import('node:test').TestContext} t @param {any} [options] */
async function blankPage(t, options) {
  const tab = await browser.person(t, { name: 'Ann', ...options });
  await tab.page.goto(`${server.origin}/`);
  return tab;
}

/**
 * Runs in the page: `times` bare WebTransport sessions, each ended by the server in the way `how`. Returns the code
 * in each `closed`. No code of the client is between the browser and the result.
 */
async function closedWith({ how, room, times }) {
  const { connect } = await import('/client/index.js');
  const { FrameDecoder, frame } = await import('/client/wire.js');
  const { webtransport } = await (await fetch('/api/transports')).json();
  const options = {
    serverCertificateHashes: webtransport.serverCertificateHashes.map(({ algorithm, value }) => ({
      algorithm,
      value: Uint8Array.from(atob(value), (char) => char.charCodeAt(0)),
    })),
  };
  const host = connect({ server: location.origin, roomId: room, userId: 'host', storage: null, transport: 'websocket' });
  await host.ready;

  const open = async (join) => {
    const session = new WebTransport(webtransport.url, options);
    await session.ready;
    const { readable, writable } = await session.createBidirectionalStream();
    const writer = writable.getWriter();
    const say = (message) => writer.write(frame(new TextEncoder().encode(JSON.stringify(message)))).catch(() => {});
    const decoder = new FrameDecoder();
    const joined = new Promise((resolve) => {
      (async () => {
        for (const reader = readable.getReader(); ; ) {
          const { value, done } = await reader.read();
          if (done) return;
          for (const json of decoder.push(value)) if (JSON.parse(json).type === 'ROOM_STATE') resolve(JSON.parse(json));
        }
      })().catch(() => {});
    });
    await say({ type: 'JOIN', protocol: 3, roomId: room, ...join });
    return { session, writer, say, state: await joined };
  };

  const ends = [];
  for (let i = 0; i < times; i++) {
    const userId = `guest-${how}-${i}`;
    const guest = await open({ userId, username: userId });
    /** @type {any} */
    let taker;
    if (how === 'kick') await host.kick(userId);
    if (how === 'ban') await host.ban(userId);
    if (how === 'takeover') taker = await open({ userId, resumeToken: guest.state.resumeToken });
    if (how === 'leave') await guest.say({ type: 'LEAVE' });
    if (how === 'oversize') await guest.writer.write(Uint8Array.of(255, 255, 255, 255)).catch(() => {});
    ends.push(await guest.session.closed.then(({ closeCode }) => closeCode, (error) => String(error)));
    taker?.session.close();
  }
  host.leave();
  return ends;
}

describe('the closing code in the WebTransport of a real Chromium', () => {
  for (const [how, code] of [['kick', 4006], ['ban', 4007], ['takeover', 4005], ['leave', 1000], ['oversize', 4001]]) {
    test(`${how}: ${code}, ${TIMES} times of ${TIMES}`, async (t) => {
      const { page } = await blankPage(t, { allowed: [/WebTransport|stream/] });
      const ends = await page.evaluate(closedWith, { how, room: roomName('ends'), times: TIMES });
      assert.deepEqual(ends, Array(TIMES).fill(code));
    });
  }
});
