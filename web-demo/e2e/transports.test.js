import assert from 'node:assert/strict';
import { createHash, X509Certificate } from 'node:crypto';
import { createSocket } from 'node:dgram';
import { after, before, describe, test } from 'node:test';
import { connect as tlsConnect } from 'node:tls';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';

const server = new Server();
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

/** A port that takes UDP and never answers, like a network that drops it. @param {import('node:test').TestContext} t */
async function silentPort(t) {
  const socket = createSocket('udp4');
  await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve));
  t.after(() => new Promise((resolve) => socket.close(resolve)));
  return socket.address().port;
}

/** A port without a listener: the machine refuses at once. */
async function closedPort() {
  const socket = createSocket('udp4');
  await new Promise((resolve) => socket.bind(0, '127.0.0.1', resolve));
  const { port } = socket.address();
  await new Promise((resolve) => socket.close(resolve));
  return port;
}

/** Has /api/transports name that port for WebTransport. */
async function pointWebTransportAt(tab, port) {
  await tab.page.route('**/api/transports', async (route) => {
    const response = await route.fetch();
    const endpoints = await response.json();
    endpoints.webtransport.url = endpoints.webtransport.url.replace(/:\d+\//, `:${port}/`);
    await route.fulfill({ response, json: endpoints });
  });
  tab.allow(/Failed to establish a connection|ERR_QUIC|ERR_CONNECTION|WebTransport/);
}

describe('the way to the server', () => {
  test('is WebTransport where it works, and the page says so', async (t) => {
    const ann = await browser.join(t, { server, room: roomName('auto'), name: 'Ann' });
    assert.equal((await ann.room()).transport, 'webtransport');
    await ann.until('the badge', () => document.querySelector('#members .badge').innerText === 'WT');
    await ann.choose('stats');
    await ann.until('the fact', () => document.querySelector('#facts').innerText.includes('WebTransport'));
  });

  test('is WebSocket where the network eats UDP, and the page says so', async (t) => {
    const room = roomName('blocked');
    const ann = await browser.person(t, { name: 'Ann' });
    await pointWebTransportAt(ann, await silentPort(t));
    await ann.enter({ origin: server.origin, room });
    assert.equal((await ann.room()).transport, 'websocket');
    await ann.until('the badge', () => document.querySelector('#members .badge').innerText === 'WS');
    await ann.choose('stats');
    await ann.until('the fact', () => document.querySelector('#facts').innerText.includes('WebSocket'));
    await ann.film();
    await ann.click('#play');
    await ann.inStep();
  });

  test('is WebSocket where nobody answers on the UDP port', async (t) => {
    const ann = await browser.person(t, { name: 'Ann' });
    await pointWebTransportAt(ann, await closedPort());
    await ann.enter({ origin: server.origin, room: roomName('closed') });
    assert.equal((await ann.room()).transport, 'websocket');
  });

  test('is not WebSocket when somebody insists on WebTransport, and there is a way out', async (t) => {
    const ann = await browser.person(t, { name: 'Ann' });
    await pointWebTransportAt(ann, await silentPort(t));
    await ann.enter({ origin: server.origin, room: roomName('forced'), transport: 'webtransport', wait: false });
    await ann.until('being told', () => document.querySelector('#join-error').innerText.includes('has not answered yet'));
    await ann.click('#join-submit');
    await ann.until('the form again', () => document.querySelector('#join-submit').innerText === 'Enter the room');
    await ann.page.locator('.join .segmented label', { hasText: 'WebSocket' }).click();
    await ann.click('#join-submit');
    await ann.joined();
    assert.equal((await ann.room()).transport, 'websocket');
  });

  test('can be forced, and changed without losing the seat', async (t) => {
    const room = roomName('switch');
    const ann = await browser.join(t, { server, room, name: 'Ann', transport: 'websocket' });
    const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'webtransport' });
    assert.equal((await ann.room()).transport, 'websocket');
    assert.equal((await bob.room()).transport, 'webtransport');
    await ann.film();
    await ann.click('#play');
    await allInStep([ann, bob]);
    await bob.listen();

    const before = await ann.room();
    await ann.choose('stats');
    for (const [label, kind] of [['WebTransport', 'webtransport'], ['WebSocket', 'websocket'], ['WebTransport', 'webtransport']]) {
      await ann.page.locator('#transport-choice label', { hasText: label }).click();
      await ann.until(`being on ${kind}`, (wanted) => window.tandem?.room.state === 'joined' && window.tandem.room.transport === wanted, kind);
      await allInStep([ann, bob]);
    }
    const now = await ann.room();
    assert.equal(now.slot, before.slot);
    assert.equal(now.isHost, true);
    assert.deepEqual(await bob.heard('USER_LEFT'), []);
    assert.deepEqual(await bob.heard('HOST_CHANGED'), []);
  });
});

describe('the page', () => {
  test('works over HTTPS on the QUIC port, in one room with a page on the plain port', async (t) => {
    const room = roomName('https');
    const secure = { context: { ignoreHTTPSErrors: true }, origin: server.secureOrigin, allowed: [/Mixed Content.*media\/film/] };
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'webtransport', ...secure });
    const cid = await browser.join(t, { server, room, name: 'Cid', transport: 'websocket', ...secure });
    await Promise.all([ann, bob, cid].map((tab) => tab.film()));
    await ann.click('#play');
    await allInStep([ann, bob, cid]);
    assert.equal(await bob.page.evaluate(() => location.protocol), 'https:');
  });

  test('works over HTTP/3', async (t) => {
    const forced = new Browser([
      `--origin-to-force-quic-on=127.0.0.1:${server.quicPort}`,
      `--ignore-certificate-errors-spki-list=${await publicKeyHash()}`,
    ]);
    const ann = await forced.join(t, { server, room: roomName('h3'), name: 'Ann', origin: `https://127.0.0.1:${server.quicPort}`, transport: 'webtransport' });
    const hops = await ann.page.evaluate(() => [
      performance.getEntriesByType('navigation')[0].nextHopProtocol,
      ...performance.getEntriesByType('resource').filter(({ name }) => name.endsWith('.js')).map(({ nextHopProtocol }) => nextHopProtocol),
    ]);
    assert.deepEqual([...new Set(hops)], ['h3']);
    await ann.film();
    await ann.click('#play');
    await ann.inStep();
  });
});

async function publicKeyHash() {
  const socket = tlsConnect({ host: 'localhost', port: server.quicPort, servername: 'localhost', rejectUnauthorized: false });
  await new Promise((resolve, reject) => socket.once('secureConnect', resolve).once('error', reject));
  const certificate = new X509Certificate(socket.getPeerCertificate(true).raw);
  socket.destroy();
  return createHash('sha256').update(certificate.publicKey.export({ type: 'spki', format: 'der' })).digest('base64');
}
