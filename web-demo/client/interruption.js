/**
 * A pause that nobody meant: a browser stops muted films in background tabs, telephone calls and unplugged headphones
 * stop any. The room plays on, and this player comes back: at once when the page is seen again, otherwise after a pause
 * that doubles, and after a few attempts in vain only when a person asks for it.
 */
const FIRST_MS = 1000;
const MOST_ATTEMPTS = 5;
/** After so long of playing, the interruption is over. */
const OVER_AFTER_MS = 10_000;

export class Interruption {
  #attempts = 0;
  #at = -Infinity;
  #notBefore = -Infinity;

  /**
   * @param {number} now
   * @param {boolean} hidden
   */
  note(now, hidden) {
    this.#attempts = now - this.#at > OVER_AFTER_MS + this.#wait ? 1 : this.#attempts + 1;
    this.#at = now;
    this.#notBefore = hidden || this.#attempts > MOST_ATTEMPTS ? Infinity : now + this.#wait;
  }

  /** How long the player must not be started yet, ms. @param {number} now */
  left(now) {
    return Math.max(0, this.#notBefore - now);
  }

  /** Whether only a person or a command of the room starts the player again. */
  get lasting() {
    return this.#notBefore === Infinity;
  }

  /** The page is seen again. */
  noteVisible() {
    if (this.#attempts <= MOST_ATTEMPTS) this.#notBefore = -Infinity;
  }

  /** A person, or a command of the room, starts it. */
  forget() {
    this.#attempts = 0;
    this.#notBefore = -Infinity;
  }

  get #wait() {
    return FIRST_MS * 2 ** Math.max(0, this.#attempts - 1);
  }
}
