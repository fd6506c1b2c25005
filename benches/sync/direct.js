/** The course of one room: people open the page, command by a seeded schedule, leave, and come back as newcomers. */
import { setTimeout as pause } from 'node:timers/promises';
import { waitFor } from './tabs.js';
import { COMMANDS_OF, nextAct } from './plan.js';
import { mulberry32 } from './statistics.js';

const FILM_S = 180;
/** Steady readings begin 2 s after a command: every gap leaves some. */
const GAP_MS = [2700, 3600];

export class RoomDirector {
  #random;
  #seats;
  #origin;
  #run;
  #plan;
  #name;
  #done;
  #profile;
  #joins = 0;
  #inside = new Set();
  /** Everything that the tabs recorded, a newcomer's as another one's. @type {any[]} */
  records = [];

  /**
   * @param {object} parts
   * @param {{seat: import('./tabs.js').Seat, kind: import('./plan.js').Kind}[]} parts.seats
   * @param {string} parts.origin
   * @param {string} parts.name
   * @param {import('./plan.js').Run} parts.run
   * @param {string} parts.profile
   * @param {import('./plan.js').Profile} parts.plan  of the profile
   * @param {{commands: number, joins: number}} parts.done  shared by the rooms of one profile
   * @param {number} parts.seed
   */
  constructor({ seats, origin, name, run, profile, plan, done, seed }) {
    this.#seats = seats;
    this.#origin = origin;
    this.#name = name;
    this.#run = run;
    this.#profile = profile;
    this.#plan = plan;
    this.#done = done;
    this.#random = mulberry32(seed);
  }

  #between(low, high) {
    return low + this.#random() * (high - low);
  }

  #anybody() {
    const present = this.#seats.filter((place) => this.#inside.has(place));
    return present[Math.floor(this.#random() * present.length)];
  }

  /** One after another: the first is the host. */
  async gather() {
    for (const place of this.#seats) await this.#enter(place, false);
    await this.#seats[0].seat.evaluate('void window.tandem.room.setGuestControl(true)');
    await this.#say(this.#seats[0], 'play');
    await pause(3000);
  }

  /** @param {{until: number, signal: AbortSignal}} end  `until`: of performance.now() */
  async play({ until, signal }) {
    let step = Math.floor(this.#random() * 8);
    while (performance.now() < until && !signal.aborted) {
      const act = nextAct(this.#run, step++, this.#done);
      if (act === null) return;
      // Before, not after: the other rooms must not do the same last ones.
      if (act === 'nothing') {
        await this.#keepPlaying(signal);
        continue;
      }
      if (act === 'join') this.#done.joins += 1;
      else this.#done.commands += COMMANDS_OF[act];
      await this.#perform(act);
      await pause(this.#between(...GAP_MS), undefined, { signal }).catch(() => {});
    }
  }

  /** A film that ends is started over: its drift is measured for longer than it lasts. @param {AbortSignal} signal */
  async #keepPlaying(signal) {
    const position = await this.#seats[0].seat.evaluate('window.tandem.room.positionNow()');
    if (position > FILM_S - 12) await this.#say(this.#seats[0], 'seek', 3);
    await pause(2000, undefined, { signal }).catch(() => {});
  }

  /** @param {string} act */
  async #perform(act) {
    // Not near the end: a film that is over stands still.
    const somewhere = () => this.#between(5, FILM_S - 70);
    if (act === 'pause') {
      await this.#say(this.#anybody(), 'pause');
      await pause(this.#between(900, 1500));
      await this.#say(this.#anybody(), 'play');
    } else if (act === 'seek') {
      await this.#say(this.#anybody(), 'seek', somewhere());
    } else if (act === 'seekPaused') {
      await this.#say(this.#anybody(), 'pause');
      await pause(this.#between(600, 1000));
      await this.#say(this.#anybody(), 'seek', somewhere(), { playing: false });
      await pause(this.#between(1200, 2000));
      await this.#say(this.#anybody(), 'play');
    } else if (act === 'rate') {
      await this.#say(this.#anybody(), 'setRate', 1.25);
      await pause(this.#between(2500, 3000));
      await this.#say(this.#anybody(), 'setRate', 1);
    } else {
      await this.#replaceSomebody();
    }
  }

  /** Somebody leaves (never the host) and comes back a little later as a newcomer. */
  async #replaceSomebody() {
    const position = await this.#seats[0].seat.evaluate('window.tandem.room.positionNow()');
    if (position > FILM_S - 40) await this.#say(this.#seats[0], 'seek', this.#between(5, 60));
    const leaver = this.#seats[1 + Math.floor(this.#random() * (this.#seats.length - 1))];
    await this.#exit(leaver);
    await pause(this.#between(300, 900));
    await this.#enter(leaver, true);
    await pause(this.#plan.joinedSeconds * 1000 + 800);
  }

  async disband() {
    for (const place of this.#seats) if (this.#inside.has(place)) await this.#exit(place);
  }

  async #enter(place, late) {
    const { seat, kind } = place;
    place.late = late;
    place.name = `${this.#name}-${kind.browser === 'chromium' ? 'c' : 'f'}${kind.transport === 'webtransport' ? 'wt' : 'ws'}-${++this.#joins}`;
    const fragment = new URLSearchParams({ room: this.#name, name: place.name, transport: kind.transport, autojoin: '1' });
    await seat.open(`${this.#origin}/#${fragment}`);
    await waitFor(seat, `${place.name}: being in the room`, "window.tandem?.room.state === 'joined' && window.tandemProbe");
    this.#inside.add(place);
    if (!late) await waitFor(seat, `${place.name}: the film`, "document.querySelector('#video').readyState >= 3");
  }

  async #exit(place) {
    this.#inside.delete(place);
    const record = JSON.parse(await place.seat.evaluate('window.tandemProbe.take()'));
    this.records.push({ name: place.name, room: this.#name, profile: this.#profile, ...place.kind, late_joiner: place.late, ...record });
    // By the button: the next one is a newcomer.
    await place.seat.evaluate('void window.tandem.room.leave()');
    await place.seat.leave();
  }

  /** @param {any} place @param {string} name @param {any[]} args */
  async #say({ seat }, name, ...args) {
    // The refusal of one command must not end an hour of measuring: what it left out is missing from the counts.
    await seat.evaluate(`window.tandemProbe.command(${JSON.stringify(name)}, ${JSON.stringify(args)})`).catch((error) => console.error(`\n${this.#name}: ${name}: ${error.message}`));
  }
}
