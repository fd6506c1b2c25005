/**
 * When a player may jump. A jump is seen by the viewer, and on a device that can't keep up it doesn't even help: each one
 * that follows soon after another has to wait longer.
 */

/** Beyond this, playing faster is no way to catch up. */
const ABOVE_MS = 600;
/** Right after a start there is nobody to startle yet: a jump gets a late joiner into step sooner. */
const ABOVE_AFTER_START_MS = 200;
const ACQUIRING_MS = 2500;
const MOST_WHILE_ACQUIRING = 2;
const COOLDOWN_MS = 2000;
const COOLDOWN_CAP_MS = 30_000;
const CALM_AFTER_MS = 15_000;

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
   */
  allows(drift, now) {
    const acquiring = now - this.#startedAt < ACQUIRING_MS && this.#inARow < MOST_WHILE_ACQUIRING;
    return Math.abs(drift) > (acquiring ? ABOVE_AFTER_START_MS : ABOVE_MS) && now >= this.#notBefore;
  }

  /** @param {number} now */
  noteJump(now) {
    this.#inARow = now - this.#lastAt < CALM_AFTER_MS ? this.#inARow + 1 : 1;
    this.#lastAt = now;
    this.#notBefore = now + Math.min(COOLDOWN_CAP_MS, COOLDOWN_MS * 2 ** (this.#inARow - 1));
  }

  /** The room or the viewer moved: the next jump is theirs. */
  forgive() {
    this.#notBefore = -Infinity;
  }
}
