/**
 * WebKit never gives back QUIC's credit for received stream data, so its client replaces a session before 16 MiB. Here
 * Chromium does so after 64 KiB, again and again, while the room talks.
 */
import assert from 'node:assert/strict';
import { after, before, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Embedding } from './support/embedding.js';
import { Server } from './support/server.js';
import { until } from './support/until.js';

const MOST_RECEIVED = 64 * 1024;
const MOVES = 5;
const MOST_ROUNDS = 300;
const CHATS_A_ROUND = 40;
const CHAT_CHARACTERS = 1900;

const server = new Server({ RATE_LIMITS: 'off' });
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

/** @param {string} series  with its labels */
async function metric(series) {
  const text = await (await fetch(`${server.origin}/metrics`)).text();
  const line = text.split('\n').find((line) => line.startsWith(`${series} `));
  return line ? Number(line.slice(series.length + 1)) : 0;
}

test('a client whose sessions hear only 64 KiB moves from one to the next under load, and nobody notices', async (t) => {
  const embedding = await Embedding.for(t, server.origin);
  const room = roomName('credit');
  const ann = await embedding.join(t, browser, {
    room, name: 'Ann', connection: { transport: 'webtransport', env: { webkit: true, mostReceived: MOST_RECEIVED } },
  });
  const bob = await embedding.join(t, browser, { room, name: 'Bob', connection: { transport: 'webtransport' } });
  const listen = () => {
    const { room } = window.tandem;
    window.heard = { chats: [], states: [], errors: [], commands: [] };
    room.addEventListener('chat', ({ detail }) => window.heard.chats.push(`${detail.username} ${detail.text.trimEnd()}`));
    room.addEventListener('state', ({ detail }) => window.heard.states.push(detail));
    room.addEventListener('error', ({ detail }) => window.heard.errors.push(detail.code));
    room.addEventListener('playback', ({ detail }) => window.heard.commands.push(`${detail.cause} ${detail.playback.position}`));
  };
  await Promise.all([ann, bob].map((tab) => tab.page.evaluate(listen)));
  await ann.page.evaluate(() => window.tandem.room.setGuestControl(true));

  const heardByBob = () => bob.page.evaluate(() => window.tandem.said.filter(({ direction }) => direction === 'in').map(({ type }) => type));
  const movesIn = (/** @type {string[]} */ said) => said.filter((type) => type === 'SESSION_CHANGED').length;
  let round = 0;
  for (; round < MOST_ROUNDS && movesIn(await heardByBob()) < MOVES; round++) {
    // Each waits for all of its own ACKs: a lost command would be an error after 10 s, or a rejection.
    await Promise.all([
      bob.page.evaluate(([round, count, length]) => Promise.all(Array.from({ length: count }, (_, n) => (
        window.tandem.room.chat(`${round * count + n}`.padEnd(length)))
      )), [round, CHATS_A_ROUND, CHAT_CHARACTERS]),
      ann.page.evaluate(async ([round, count]) => {
        for (let n = 0; n < count / 4; n++) {
          await window.tandem.room.chat(`${round * 10 + n}`);
          if (n % 5 === 0) await window.tandem.room.pause(round * 10 + n);
        }
      }, [round, CHATS_A_ROUND]),
    ]);
  }

  const numbers = (name, count) => Array.from({ length: count }, (_, n) => `${name} ${n}`);
  const ofName = (chats, name) => chats.filter((chat) => chat.startsWith(`${name} `));
  const everything = (round * CHATS_A_ROUND * 5) / 4;
  for (const tab of [ann, bob]) {
    await tab.until('the last chat', (count) => window.heard.chats.length >= count, everything);
  }
  const [hers, his] = await Promise.all([ann, bob].map((tab) => tab.page.evaluate(() => window.heard)));
  for (const heard of [hers, his]) {
    assert.deepEqual(ofName(heard.chats, 'Bob'), numbers('Bob', round * CHATS_A_ROUND));
    assert.deepEqual(ofName(heard.chats, 'Ann'), numbers('Ann', (round * CHATS_A_ROUND) / 4));
    assert.deepEqual([heard.states, heard.errors], [[], []]);
  }
  assert.deepEqual(hers.chats, his.chats, 'in one order');
  assert.deepEqual(hers.commands, his.commands);

  const said = await heardByBob();
  const moves = movesIn(said);
  assert.ok(moves >= MOVES, `${moves} moves in ${round} rounds`);
  for (const type of ['MEMBER_CONNECTION', 'USER_LEFT', 'HOST_CHANGED']) assert.ok(!said.includes(type), type);
  assert.equal(await metric('tandem_fallbacks_total{reason="credit"}'), moves);
  assert.equal(await metric('tandem_resumes_total{outcome="moved"}'), moves);
  // The sessions before are over: one each is left.
  await until('two sessions', async () => (await metric('tandem_sessions_active{transport="webtransport",dialect="v3"}')) === 2);
  const self = await ann.page.evaluate(() => ({ ...window.tandem.room.self, transport: window.tandem.room.transport }));
  assert.deepEqual([self.isHost, self.slot, self.transport], [true, 1, 'webtransport']);
});
