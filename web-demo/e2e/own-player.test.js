import assert from 'node:assert/strict';
import { after, before, describe, test } from 'node:test';
import { Browser, roomName } from './support/browser.js';
import { Embedding } from './support/embedding.js';
import { Server } from './support/server.js';

const server = new Server({ ALLOWED_MEDIA_HOSTS: '' });
before(() => server.start());
after(() => server.remove());
const browser = new Browser();

const commands = () => window.tandem.said.filter(({ direction, type }) => direction === 'out' && ['PLAY_PAUSE', 'SEEK', 'SET_RATE'].includes(type)).map(({ type, control }) => control ?? type);
const near = () => {
  const { room, video } = window.tandem;
  return room.playback.playing && !video.paused && Math.abs(video.currentTime - room.positionNow()) < 0.25;
};

/** Ann and Bob at pages that embed the client; Ann hosts, everybody may control. */
async function annAndBob(t, about, film, options) {
  const embedding = await Embedding.for(t, server.origin);
  const room = roomName(about);
  const ann = await embedding.join(t, browser, { room, name: 'Ann', options });
  const bob = await embedding.join(t, browser, { room, name: 'Bob', options });
  await ann.page.evaluate(async (url) => {
    await window.tandem.room.setGuestControl(true);
    await window.tandem.room.setUrl(url, 0);
  }, `${embedding.origin}${film}`);
  for (const tab of [ann, bob]) await tab.until('the film', () => window.tandem.video.readyState >= 3);
  return { embedding, room, ann, bob };
}

const say = (tab, act, argument) => tab.page.evaluate(`(${act})(window.tandem, ${JSON.stringify(argument ?? null)})`);

describe("a person's hand on a plain video element", () => {
  test('commands the room: a click on the film, its time line, a key', async (t) => {
    const { ann, bob } = await annAndBob(t, 'hand', '/film.webm');
    const box = await ann.page.locator('#video').boundingBox();
    await ann.page.mouse.click(box.x + box.width / 2, box.y + box.height / 3);
    for (const tab of [ann, bob]) await tab.until('playing in step', near);
    assert.deepEqual(await ann.page.evaluate(commands), ['play']);

    // The time line is at the lower edge of Chromium's controls.
    await ann.page.mouse.click(box.x + box.width / 2, box.y + box.height - 18);
    await ann.until('a seek', () => window.tandem.said.some(({ direction, type }) => direction === 'out' && type === 'SEEK'));
    for (const tab of [ann, bob]) await tab.until('playing further on', () => window.tandem.video.currentTime > 20 && window.tandem.room.playback.playing);
    for (const tab of [ann, bob]) await tab.until('playing in step', near);

    await ann.page.locator('#video').focus();
    await ann.page.keyboard.press('Space');
    for (const tab of [ann, bob]) await tab.until('standing', () => window.tandem.video.paused && !window.tandem.room.playback.playing);
    assert.deepEqual(await ann.page.evaluate(commands), ['play', 'SEEK', 'pause']);
    assert.deepEqual(await bob.page.evaluate(commands), []);
  });
});

describe('what happens to one player', () => {
  test('a film that is damaged stops for nobody else', async (t) => {
    const embedding = await Embedding.for(t, server.origin);
    const room = roomName('damaged');
    const ann = await embedding.join(t, browser, { room, name: 'Ann', options: { manageSource: false } });
    const bob = await embedding.join(t, browser, { room, name: 'Bob', options: { manageSource: false } });
    await say(ann, ({ video }, url) => (video.src = url), `${embedding.origin}/damaged.webm`);
    await say(bob, ({ video }, url) => (video.src = url), `${embedding.origin}/film.webm`);
    for (const tab of [ann, bob]) await tab.until('the film', () => window.tandem.video.readyState >= 3);
    await say(ann, ({ room }) => room.play(0));
    await ann.until('the decoder giving up', () => window.tandem.video.error?.code === 3, undefined, { within: 60_000 });
    await ann.until('saying so', () => window.tandem.sync.player.state === 'failed' && window.tandem.sync.player.reason === 'decode');
    const at = await bob.page.evaluate(() => window.tandem.video.currentTime);
    await bob.until('playing on', (from) => window.tandem.video.currentTime > from + 2, at);
    assert.equal(await bob.page.evaluate(() => window.tandem.room.playback.playing), true);
    assert.deepEqual(await ann.page.evaluate(commands), ['play']);
  });

  test('where the film server knows no byte ranges, a late joiner plays, seeks a time or two, and throws nobody back', async (t) => {
    const { embedding, room, ann } = await annAndBob(t, 'whole', '/whole.webm');
    await say(ann, ({ room }) => room.play(0));
    await ann.until('being well into it', () => window.tandem.video.currentTime > 6);
    const cy = await embedding.join(t, browser, { room, name: 'Cy' });
    await cy.page.evaluate(() => {
      window.seeks = 0;
      window.tandem.video.addEventListener('seeking', () => window.seeks++);
    });
    await cy.until('playing', () => !window.tandem.video.paused && window.tandem.video.currentTime > 3);
    assert.ok((await cy.page.evaluate(() => window.seeks)) <= 4);
    assert.deepEqual(await cy.page.evaluate(commands), []);
    await ann.until('playing on in step', near);
    assert.ok(await ann.page.evaluate(() => window.tandem.room.positionNow() > 9));
  });

  test('a drag whose data never comes is a seek at once, and its member follows the room from there', async (t) => {
    const { embedding, ann, bob } = await annAndBob(t, 'hangs', '/hangs.webm');
    await say(ann, ({ room }) => room.play(0));
    await ann.until('playing', near);
    const box = await ann.page.locator('#video').boundingBox();
    await ann.page.mouse.click(box.x + box.width * 0.9, box.y + box.height - 18);
    await ann.until('a seek, without its data', () => window.tandem.said.some(({ direction, type }) => direction === 'out' && type === 'SEEK') && window.tandem.video.seeking);
    await say(bob, ({ room }) => room.pause());
    await ann.until('the pause', () => window.tandem.video.paused && !window.tandem.room.wantsPlaying);
    await say(bob, ({ room }) => room.seek(1));
    await ann.until('being back', () => !window.tandem.video.seeking && Math.abs(window.tandem.video.currentTime - 1) < 0.2);
    await say(bob, ({ room }, url) => room.setUrl(url, 0), `${embedding.origin}/film.webm`);
    await ann.until('another film', () => window.tandem.video.currentSrc.endsWith('/film.webm') && window.tandem.video.readyState >= 3);
  });

  test('a film that failed comes back when its address works again, or is chosen anew', async (t) => {
    const { embedding, ann, bob } = await annAndBob(t, 'flaky', '/film.webm');
    for (const tab of [ann, bob]) tab.allow(/503/);
    embedding.works = false;
    const url = `${embedding.origin}/flaky.webm`;
    await say(ann, ({ room }, film) => room.setUrl(film, 0), url);
    await ann.until('the failure', () => window.tandem.sync.player.state === 'failed');
    embedding.works = true;
    await say(ann, ({ room }, film) => room.setUrl(film, 0), url);
    await ann.until('the film', () => window.tandem.sync.player.state === 'ready');
    embedding.works = false;
    await say(ann, ({ room }, film) => room.setUrl(film, 0), `${url}?another`);
    await ann.until('the failure', () => window.tandem.sync.player.state === 'failed');
    embedding.works = true;
    await ann.until('the film', () => window.tandem.sync.player.state === 'ready');
  });

  test('who has no player, or one that failed, is not awaited, and the others see it', async (t) => {
    const { embedding, room, ann, bob } = await annAndBob(t, 'awaited', '/film.webm');
    const cy = await embedding.join(t, browser, { room, name: 'Cy', options: { manageSource: false } });
    cy.allow(/404/);
    await embedding.join(t, browser, { room, name: 'Dee', options: { manageSource: false } });
    await say(cy, ({ video }) => (video.src = '/nothing.webm'));
    await ann.until('hearing of it', () => window.tandem.room.members.find((m) => m.username === 'Cy').player === 'failed');
    await ann.until('both being ready', () => window.tandem.room.members.filter((m) => m.player === 'ready').length === 2);
    assert.deepEqual(await ann.page.evaluate(() => window.tandem.room.members.map(({ username, player, playerReason }) => [username, player, playerReason])), [
      ['Ann', 'ready', null], ['Bob', 'ready', null], ['Cy', 'failed', 'unsupported'], ['Dee', 'none', null],
    ]);
    await say(ann, ({ room }) => room.play(0));
    await ann.until('playing', near);
    await say(ann, ({ room }) => room.seek(30));
    await ann.until('playing on', () => window.tandem.room.playback.playing && window.tandem.video.currentTime > 30 && !window.tandem.video.paused);
    const awaited = await ann.page.evaluate(() => window.tandem.said.filter(({ type }) => type === 'SEEK_PAUSE').map(({ gate }) => gate?.awaiting.map((id) => window.tandem.room.members.find((m) => m.userId === id).username).sort()));
    assert.deepEqual(awaited, [['Ann', 'Bob']]);
    await bob.until('playing', near);
  });

  test('a film that the browser stops in a hidden tab stops for nobody else, and goes on when the tab is seen', async (t) => {
    const { ann, bob } = await annAndBob(t, 'hidden', '/film.webm');
    await say(ann, ({ room }) => room.play(0));
    for (const tab of [ann, bob]) await tab.until('playing', near);
    await say(ann, ({ video }) => {
      video.muted = true;
      Object.defineProperty(document, 'visibilityState', { value: 'hidden', configurable: true });
      video.pause();
    });
    await ann.until('being held by the browser', () => window.tandem.sync.limit === 'paused');
    const at = await bob.page.evaluate(() => window.tandem.video.currentTime);
    await bob.until('playing on', (from) => window.tandem.room.playback.playing && window.tandem.video.currentTime > from + 1.5, at);
    await say(ann, () => {
      delete document.visibilityState;
      document.dispatchEvent(new Event('visibilitychange'));
    });
    await ann.until('playing in step', near);
    assert.deepEqual(await ann.page.evaluate(commands), ['play']);
  });

  test('loop on one element restarts nobody', async (t) => {
    const { ann, bob } = await annAndBob(t, 'loop', '/film.webm');
    await say(bob, ({ video }) => (video.loop = true));
    await say(ann, ({ room, video }) => room.seek(video.duration - 1.5, { playing: true }));
    for (const tab of [ann, bob]) await tab.until('the end', () => window.tandem.video.paused && window.tandem.video.duration - window.tandem.video.currentTime < 0.2);
    assert.deepEqual(await bob.page.evaluate(commands), []);
  });
});

describe('the page', () => {
  test('shows the film again to whoever leaves and enters the room again', async (t) => {
    const room = roomName('again');
    const ann = await browser.join(t, { server, room, name: 'Ann' });
    const bob = await browser.join(t, { server, room, name: 'Bob' });
    for (let visit = 0; visit < 2; visit++) {
      await bob.film();
      await bob.click('#leave-button');
      await bob.until('being outside', () => !document.querySelector('#landing').hidden);
      await bob.page.locator('#join-room').fill(room);
      await bob.click('#join-submit');
      await bob.joined();
    }
    await bob.film();
    await ann.click('#play');
    await bob.inStep();
  });
});
