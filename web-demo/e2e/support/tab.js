/** A person's page, and the tests' actions and questions. */
import assert from 'node:assert/strict';
import { until } from './until.js';

/** Tolerance for a browser on a busy machine, s; benches/sync measures the real distance. */
const NEAR_S = 0.25;

/** On a busy machine a client doubts its line, and closes what it was opening once the line has spoken. */
const RELIEVED = /WebSocket is closed before the connection is established/;

export class Tab {
  #problems = [];
  #allowed;
  page;
  name;

  /** @param {import('playwright-core').BrowserContext} context */
  static async open(context, { name, allowed }) {
    const tab = new Tab();
    tab.name = name;
    tab.#allowed = [RELIEVED, ...allowed];
    await context.addInitScript(() => {
      addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => {
        console.error(`CSP violation: ${violatedDirective} ${blockedURI}`);
      });
    });
    const page = await context.newPage();
    page.setDefaultTimeout(20_000);
    page.on('console', (message) => {
      if (['error', 'warning'].includes(message.type())) tab.#problems.push(`${message.type()}: ${message.text()} ${message.location()?.url ?? ''}`);
    });
    page.on('pageerror', (error) => tab.#problems.push(`uncaught: ${error.stack ?? error}`));
    tab.page = page;
    return tab;
  }

  /** Allows console messages that the test provokes on purpose. @param {RegExp} pattern */
  allow(pattern) {
    this.#allowed.push(pattern);
  }

  assertClean() {
    const problems = this.#problems.filter((problem) => !this.#allowed.some((pattern) => pattern.test(problem)));
    assert.deepEqual(problems, [], `${this.name}'s console`);
  }

  async enter({ origin, room, transport = 'auto', pin, wait = true }) {
    const fragment = new URLSearchParams({ room, name: this.name, transport, autojoin: '1', ...(pin && { pin }) });
    await this.page.goto(`${origin}/#${fragment}`);
    if (wait) await this.joined();
  }

  /** The page is told another port of QUIC. @param {number} port */
  async seesQuicOn(port) {
    await this.page.route('**/api/transports', async (route) => {
      try {
        const response = await route.fetch();
        const answer = await response.json();
        answer.webtransport = { ...answer.webtransport, port, url: `https://127.0.0.1:${port}/wt` };
        await route.fulfill({ response, json: answer });
      } catch {
        await route.abort().catch(() => {}); // The server is away, or the page.
      }
    });
  }

  async joined() {
    await this.until('being in the room', () => window.tandem?.room.state === 'joined' && !document.querySelector('#room').hidden);
  }

  /** Waits for a condition in the page. */
  async until(what, look, argument, options) {
    return until(`${this.name}: ${what}`, () => this.page.evaluate(look, argument), { show: () => this.#brief(), ...options });
  }

  async #brief() {
    const seen = await this.see().catch((error) => ({ error: error.message }));
    return `\n${this.name} sees: ${JSON.stringify(seen)}\nconsole: ${this.#problems.join('\n')}`;
  }

  /** The room and the player at one instant. */
  see() {
    return this.page.evaluate(async () => {
      const { readFrame, FRAMES_PER_SECOND } = await import('/app/framecode.js');
      if (!window.tandem) return { state: 'outside' };
      const { room, sync } = window.tandem;
      const video = document.querySelector('#video');
      const frame = readFrame(video);
      return {
        state: room.state,
        transport: room.transport,
        epoch: room.epoch,
        seq: room.seq,
        self: room.self,
        host: room.hostUserId,
        members: room.members.map(({ userId, username, slot, connected, transport }) => ({ userId, username, slot, connected, transport })),
        playback: room.playback,
        gate: room.gate,
        url: room.url,
        clockOff: room.clock.roomTime() - Date.now(),
        roomPosition: room.positionNow(),
        position: video.currentTime,
        framePosition: frame === null ? null : frame / FRAMES_PER_SECOND,
        paused: video.paused,
        rate: video.playbackRate,
        mode: sync.mode,
        drift: sync.drift,
      };
    });
  }

  /** The room's state, without this player's. */
  room() {
    return this.page.evaluate(() => {
      const { room } = window.tandem;
      return {
        state: room.state,
        transport: room.transport,
        slot: room.self.slot,
        userId: room.self.userId,
        isHost: room.self.isHost,
        host: room.hostUserId,
        epoch: room.epoch,
        seq: room.seq,
        playing: room.playback.playing,
        members: room.members.map(({ userId, slot, connected }) => ({ userId, slot, connected })),
      };
    });
  }

  /** Waits until the film is loaded and can be shown. */
  async film() {
    await this.until('the film being loaded', () => document.querySelector('#video').readyState >= 3);
  }

  /** Playing, and where the room is: by the player's own clock and by the frame that is on the screen. */
  async inStep({ playing = true, rate } = {}) {
    const see = () => this.see();
    return until(`${this.name}: being in step`, async () => {
      const seen = await see();
      const near = Math.abs(seen.position - seen.roomPosition) < NEAR_S;
      // A frame is 40 ms long, and the screen shows it a little later than it is due.
      const shown = seen.framePosition === null || Math.abs(seen.framePosition - seen.roomPosition) < NEAR_S + 0.1;
      const clock = Math.abs(seen.clockOff) < 100;
      const moving = seen.playback.playing === playing && seen.paused === !playing;
      const right = rate === undefined || (seen.playback.rate === rate && Math.abs(seen.rate / rate - 1) < 0.09);
      return near && shown && clock && moving && right && seen.gate === null ? seen : false;
    }, { show: () => this.#brief() });
  }

  /** Records the types of the messages that arrive from now on. */
  async listen() {
    await this.page.evaluate(() => {
      window.heard = [];
      const { room } = window.tandem;
      room.addEventListener('message', ({ detail }) => {
        if (detail.direction === 'in' && !detail.compact) window.heard.push(detail.message);
      });
    });
  }

  async heard(type) {
    return this.page.evaluate((wanted) => window.heard.filter((message) => message.type === wanted), type);
  }

  /** Presses a key on the page itself, not in a field. */
  async press(key) {
    await this.page.locator('#stage').focus();
    await this.page.keyboard.press(key);
  }

  async click(selector) {
    await this.page.locator(selector).click();
  }

  text(selector) {
    return this.page.locator(selector).innerText();
  }

  async choose(panel) {
    await this.page.locator(`#tab-${panel}`).click();
  }

  async memberRow(name) {
    return this.page.locator('#members .member', { hasText: name });
  }

  async close() {
    await this.page.close();
  }
}

/** Waits until all tabs are in the same room, at the same position. */
export async function allInStep(tabs, options) {
  const seen = await Promise.all(tabs.map((tab) => tab.inStep(options)));
  for (const { playback, epoch } of seen) {
    assert.equal(epoch, seen[0].epoch);
    assert.deepEqual(playback, seen[0].playback, 'one vector for all');
  }
  return seen;
}
