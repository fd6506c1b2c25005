/**
 * When a player may jump. A jump is seen by the viewer, and on a device that can't keep up it doesn't even help: each
 * one that follows soon after another has to wait longer.
 */

/** Drift that a faster rate can't make up for in time, ms. */
const ABOVE_MS = 600;
/** Right after a start a jump disturbs nobody yet, and gets a late joiner into step sooner. */
const ABOVE_AFTER_START_MS = 200;
const ACQUIRING_MS = 2500;
const MOST_WHILE_ACQUIRING = 2;
const COOLDOWN_MS = 2000;
const COOLDOWN_CAP_MS = 30_000;
const CALM_AFTER_MS = 15_000;
/**
 * Where rates do nothing a jump is the only way back, from as little as is heard as an echo; and as it may be no use
 * either (a player that runs slow), each further one waits twice as long.
 */
const ABOVE_WITHOUT_RATES_MS = 45;
const COOLDOWN_CAP_WITHOUT_RATES_MS = 120_000;
const CALM_AFTER_WITHOUT_RATES_MS = 300_000;

export class JumpLimiter {
  #startedAt = -Infinity;
  #notBefore = -Infinity;
  #lastAt = -Infinity;
  #inARow = 0;

  /** @param {number} now */
  noteStart(now) {
    this.#startedAt = now;
  }

  /**
   * @param {number} drift
   * @param {number} now
   * @param {boolean} ratesHelp whether the player can catch up by its rate
   */
  allows(drift, now, ratesHelp) {
    const acquiring = now - this.#startedAt < ACQUIRING_MS && this.#inARow < MOST_WHILE_ACQUIRING;
    const usual = ratesHelp ? ABOVE_MS : ABOVE_WITHOUT_RATES_MS;
    return Math.abs(drift) > (acquiring ? ABOVE_AFTER_START_MS : usual) && now >= this.#notBefore;
  }

  /**
   * @param {number} now
   * @param {boolean} ratesHelp
   */
  noteJump(now, ratesHelp) {
    const calm = ratesHelp ? CALM_AFTER_MS : CALM_AFTER_WITHOUT_RATES_MS;
    const cap = ratesHelp ? COOLDOWN_CAP_MS : COOLDOWN_CAP_WITHOUT_RATES_MS;
    this.#inARow = now - this.#lastAt < calm ? this.#inARow + 1 : 1;
    this.#lastAt = now;
    this.#notBefore = now + Math.min(cap, COOLDOWN_MS * 2 ** (this.#inARow - 1));
  }

  /** The room or the viewer moved: the next jump needs no cooldown. */
  forgive() {
    this.#notBefore = -Infinity;
  }
}
