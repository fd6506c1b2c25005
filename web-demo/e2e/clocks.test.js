/** The date of a node, and of the node after a restart, set ahead and back in the middle of the film (libfaketime). */
import assert from 'node:assert/strict';
import { existsSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Server } from './support/server.js';
import { allInStep } from './support/tab.js';
import { until } from './support/until.js';
import { seen, watch } from './support/watch.js';

const FAKETIME = process.env.FAKETIME ?? '/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1';
const GONE = [/ERR_CONNECTION|ERR_QUIC|ERR_EMPTY_RESPONSE|ERR_INCOMPLETE/, /WebSocket connection to .* failed/, /Failed to establish a connection to/, /WebTransport/];
const browser = new Browser();

/**
 * A node whose date the test sets, as `date` would: its steady clock goes on.
 * @param {import('node:test').TestContext} t
 */
async function nodeWithDate(t) {
  if (!existsSync(FAKETIME)) throw new Error(`${FAKETIME} is missing; install it with: apt-get install faketime (or set FAKETIME)`);
  const dir = await mkdtemp(join(tmpdir(), 'tandem-e2e-date-'));
  t.after(() => rm(dir, { recursive: true, force: true }));
  const file = join(dir, 'date');
  const setDate = (offset) => writeFile(file, `${offset}\n`);
  await setDate('+0');
  const env = { LD_PRELOAD: FAKETIME, FAKETIME_TIMESTAMP_FILE: file, FAKETIME_NO_CACHE: '1', FAKETIME_DONT_FAKE_MONOTONIC: '1', DONT_FAKE_MONOTONIC: '1' };
  return { server: await Server.for(t, env), setDate };
}

/**
 * How far the node's date is from this machine's, s, by the header of an answer, which a running process never sets
 * back.
 */
async function dateOff(server) {
  const { headers } = await fetch(`${server.origin}/health`);
  return (Date.parse(headers.get('date') ?? '') - Date.now()) / 1000;
}

describe('the date of a node', () => {
  for (const [how, offset, seconds] of [['ahead', '+1h', 3600], ['back', '-1h', -3600]]) {
    test(`set ${how} by an hour in the middle of the film is noticed by nobody, and after a restart all are together`, async (t) => {
      const { server, setDate } = await nodeWithDate(t);
      const room = roomName('date');
      const ann = await browser.join(t, { server, room, name: 'Ann', transport: 'webtransport', allowed: GONE });
      const bob = await browser.join(t, { server, room, name: 'Bob', transport: 'websocket', allowed: GONE });
      await Promise.all([ann, bob].map((tab) => tab.film()));
      await ann.click('#play');
      await allInStep([ann, bob]);
      await Promise.all([ann, bob].map((tab) => watch(tab)));

      await setDate(offset);
      const hasIt = () => until('the node having another date', async () => Math.abs((await dateOff(server)) - seconds) < 60);
      if (seconds > 0) await hasIt();
      const from = await bob.page.evaluate(() => window.tandem.room.positionNow());
      await bob.until('three seconds of the film', (to) => window.tandem.room.positionNow() > to, from + 3);
      const [{ clockOff }] = await allInStep([ann, bob]);
      assert.ok(Math.abs(clockOff) < 100, 'room time goes on as it did');
      for (const tab of [ann, bob]) {
        const { seeks, pauses, vectors, joins, commands } = await seen(tab);
        assert.deepEqual({ seeks, pauses, vectors, joins, commands }, { seeks: 0, pauses: 0, vectors: 0, joins: 0, commands: [] });
      }
      const cid = await browser.join(t, { server, room, name: 'Cid', allowed: GONE });
      await allInStep([ann, bob, cid]);

      await server.stop('SIGKILL');
      await server.start();
      await hasIt();
      const restarted = performance.now();
      for (const tab of [ann, bob, cid]) {
        await tab.until('being back', () => window.tandem.room.state === 'joined' && window.tandem.room.members.length === 3 && window.tandem.room.members.every(({ connected }) => connected), null, { within: 60_000 });
      }
      const playing = await ann.page.evaluate(() => window.tandem.room.playback.playing);
      // The new process begins with its date, but not before the latest commit that it knows.
      const off = await ann.page.evaluate(() => window.tandem.room.clock.roomTime() - Date.now());
      assert.ok(seconds > 0 ? Math.abs(off - seconds * 1000) < 60_000 : off > -300_000, `${off} ms`);
      await until('all in step', async () => {
        const views = await Promise.all([ann, bob, cid].map((tab) => tab.see()));
        return views.every(({ position, roomPosition, paused }) => Math.abs(position - roomPosition) < 0.25 && paused === !playing) && views;
      }, { within: 30_000 });
      t.diagnostic(`together ${Math.round(performance.now() - restarted)} ms after the restart; ${playing ? 'playing' : 'standing'}`);
      for (const tab of [ann, bob, cid]) {
        const heard = await tab.page.evaluate(() => window.seen?.commands ?? []);
        assert.deepEqual(heard, [], 'nobody commanded anything');
      }
    });
  }
});
