/**
 * Reports this player to the room: ticks (where it is) and statuses (how well it does).
 */
const HOST_TICK_MS = 250;
const TICK_MS = 1000;
/** In a large room only the host's position is told to others. */
const UNTOLD_TICK_MS = 10_000;
/** Less than the promised 2 s, because timers are late. */
const STATUS_MS = 1900;
const STATUS_AT_MOST_EVERY_MS = 500;

/**
 * @typedef {object} Reading
 * @property {number} position
 * @property {boolean} playing
 * @property {number} rate
 * @property {number|null} driftMs
 * @property {boolean} buffering
 * @property {boolean} telling   whether the position says anything: not while stalled, seeking, or starting
 */

export class Reporter {
  #room;
  #env;
  #read;
  #buffering = false;
  #statusAt = -Infinity;
  #tickAt = -Infinity;
  /** @type {any} */
  #timer = null;
  /** @type {any} */
  #statusTimer = null;

  /**
   * @param {import('./room.js').Room} room
   * @param {() => Reading} read
   */
  constructor(room, read) {
    this.#room = room;
    this.#env = room.env;
    this.#read = read;
    this.#loop();
  }

  /** Call when something about buffering may have changed: the room is told soon, but not in bursts. */
  noticeBuffering() {
    if (this.#read().buffering === this.#buffering || this.#statusTimer !== null) return;
    const wait = Math.max(0, this.#statusAt + STATUS_AT_MOST_EVERY_MS - this.#env.now());
    this.#statusTimer = this.#env.setTimeout(() => {
      this.#statusTimer = null;
      if (this.#read().buffering !== this.#buffering) this.#sendStatus();
    }, wait);
  }

  stop() {
    this.#env.clearTimeout(this.#timer);
    this.#env.clearTimeout(this.#statusTimer);
  }

  #loop() {
    const { position, playing, rate, telling } = this.#read();
    if (this.#env.now() - this.#statusAt >= STATUS_MS) this.#sendStatus();
    // A stalled host that said "paused, here" would pull the room back to where it stalled.
    const untold = this.#room.digest !== null && !this.#room.self.isHost;
    if (telling && this.#room.clock.synced && !(untold && this.#env.now() - this.#tickAt < UNTOLD_TICK_MS)) {
      this.#tickAt = this.#env.now();
      this.#room.sendTick({ position, playing, rate, at: this.#room.clock.roomTime() });
    }
    const often = this.#room.self.isHost && this.#room.playback.playing;
    this.#timer = this.#env.setTimeout(() => this.#loop(), often ? HOST_TICK_MS : TICK_MS);
  }

  #sendStatus() {
    const { driftMs, buffering } = this.#read();
    this.#buffering = buffering;
    this.#statusAt = this.#env.now();
    this.#room.sendStatus({ driftMs, buffering });
  }
}
