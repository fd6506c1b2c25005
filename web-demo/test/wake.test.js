/**
 * Pages that were hidden, stopped or asleep, and room time that jumps, in virtual time: back in step within 3 s,
 * without a storm of seeks, and without a command that would pull the others along. The same with real browsers, for
 * seconds instead of hours: e2e/wake.test.js.
 */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { play, watching } from './support/watching.js';

/** A film long enough for what is tried, and a player that has been in step with it. */
async function playing({ transport = 'webtransport', host = false, ...options } = {}) {
  const harness = await watching({ host, transport, video: { duration: 20_000, dropsFrames: 0 }, ...options });
  play(harness.server);
  await harness.env.advance(8000);
  assert.ok(Math.abs(harness.drift()) < 30);
  const { seek } = harness.video.calls;
  return { ...harness, seeks: () => harness.video.calls.seek - seek };
}

/** Waits until the player is where the room is, by the server's clock, and stays there for a second; returns when. */
async function backInStep({ env, server, video }) {
  const began = env.now();
  const { position, at } = server.room.playback;
  const off = () => (video.truePosition() - position) * 1000 - (server.roomTime() - at);
  for (let since = null; ; ) {
    const near = !video.paused && Math.abs(off()) < 50;
    since = near ? (since ?? env.now()) : null;
    if (since !== null && env.now() - since >= 1000) return since - began;
    assert.ok(env.now() - began < 30_000, `${off()} ms off, ${video.paused ? 'paused' : 'playing'}`);
    await env.advance(20);
  }
}

/** It is back soon, and calmly. */
async function assertBack(t, harness, within = 3000) {
  const took = await backInStep(harness);
  t.diagnostic(`in step after ${took} ms, ${harness.seeks()} seeks`);
  assert.ok(took <= within, `${took} ms`);
  await harness.env.advance(20_000);
  assert.ok(harness.seeks() <= 2, `${harness.seeks()} seeks`);
  assert.deepEqual(harness.commands(), []);
  assert.ok(Math.abs(harness.drift()) < 50);
}

for (const transport of ['webtransport', 'websocket']) {
  for (const host of [false, true]) {
    describe(`a ${host ? 'host' : 'guest'} over ${transport}`, () => {
      for (const [time, ms] of [['5 s', 5000], ['20 s', 20_000], ['10 min', 600_000]]) {
        for (const mailFirst of [true, false]) {
          test(`whose browser was stopped for ${time} is back in step (${mailFirst ? 'mail' : 'timers'} first)`, async (t) => {
            const harness = await playing({ transport, host });
            const { env, server, video, life } = harness;
            life.stop();
            video.suspend();
            // After 15 s without an answer the server ends the session; what it says to the page waits.
            const ended = ms > 15_000;
            await env.advance(Math.min(ms, 15_000));
            if (ended) {
              server.line.end(4004, 'idle');
              await env.advance(ms - 15_000);
            }
            video.wake();
            await life.resume({ mailFirst });
            await assertBack(t, harness);
            assert.equal(server.receivedOf('JOIN').length, ended ? 2 : 1);
          });
        }
      }

      test('whose laptop slept for an hour is back in step: its clock stood still, and nobody told it that its line is dead', async (t) => {
        const harness = await playing({ transport, host });
        const { env, server } = harness;
        server.line.cut = true;
        env.wallOffset += 3_600_000;
        server.offset += 3_600_000;
        await assertBack(t, harness);
      });

      test('in a tab that was hidden for an hour, with a timer a minute, is in step when it is seen', async (t) => {
        const harness = await playing({ transport, host });
        const { env, life, server } = harness;
        life.hide(60_000);
        await env.advance(3_600_000);
        life.show();
        await assertBack(t, harness, 1000);
        assert.equal(server.receivedOf('JOIN').length, 1);
      });

      test('whose browser paused the film in a hidden tab for an hour goes on where the others are', async (t) => {
        const harness = await playing({ transport, host });
        const { env, life, video } = harness;
        life.hide(60_000);
        video.halt();
        await env.advance(3_600_000);
        assert.equal(video.paused, true);
        life.show();
        await assertBack(t, harness);
      });

      test('that was discarded or frozen, and comes back after ten minutes, is in step', async (t) => {
        const harness = await playing({ transport, host });
        const { env, video, life } = harness;
        env.page('freeze');
        life.stop();
        video.suspend();
        await env.advance(600_000);
        video.wake();
        await life.resume();
        env.page('resume');
        await assertBack(t, harness);
      });

      for (const [what, ms] of [['ahead', 700], ['back', -700], ['far ahead', 3_600_000], ['far back', -3_600_000]]) {
        test(`whose own clock is set ${what} notices nothing: only the steady one counts`, async (t) => {
          const harness = await playing({ transport, host });
          const { env, server } = harness;
          env.wallOffset += ms;
          await env.advance(5000);
          assert.equal(harness.seeks(), 0);
          assert.equal(server.receivedOf('JOIN').length, 1);
          await assertBack(t, harness, 100);
        });
      }

      for (const ms of [400, 2000, -400]) {
        test(`follows a step of room time by ${ms} ms at once instead of gliding for minutes`, async (t) => {
          const harness = await playing({ transport, host });
          const { env, server, room } = harness;
          server.offset += ms;
          // The server tells every member the whole state with the new time.
          server.line.deliver({ ...server.room, resumeToken: undefined, roomTime: server.roomTime() });
          const began = env.now();
          await env.until('room time being right', () => Math.abs(room.clock.roomTime() - server.roomTime()) < 20, 10_000);
          t.diagnostic(`room time right after ${env.now() - began} ms`);
          assert.ok(env.now() - began < 1500);
          await assertBack(t, harness, Math.abs(ms) < 600 ? 6000 : 3000); // Below 600 ms a player catches up by its rate.
        });
      }
    });
  }
}
