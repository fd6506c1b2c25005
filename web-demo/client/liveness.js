/**
 * Whether the server still answers, and whether this page was in a position to hear it. Client messages that the server
 * answers at once (PING, a clock probe) are questions; anything that arrives answers them.
 *
 * A question that is unanswered for `UNANSWERED_MS` puts the line in doubt (`onDoubt`): the connection asks again and
 * opens another line beside it. `SILENCE_MS` without anything ends it (`onSilent`).
 *
 * Three things look like a dead server and are none. A page that stood still (a stopped process, a busy machine, a
 * laptop that slept) finds its timers late and its messages unread: the first late look asks again instead of judging.
 * A hidden tab, whose timers come once a second and after some minutes once a minute, always looks late: it judges at
 * the second look. And what was asked before the network changed says nothing about the new one.
 */
const PING_EVERY_MS = 5000;
const UNANSWERED_MS = 2500;
/** The least for a page that has just woken: the answers may be there, unread. */
const UNANSWERED_AFTER_WAKING_MS = 750;
const SILENCE_MS = 12_000;
const SILENCE_AFTER_WAKING_MS = 4000;
/** A look this late may be one of a page that stood still. */
const LATE_MS = 300;
/** The server has ended the session of a page that stood still for so long (IDLE_SECS): little is to be hoped for. */
const ENDED_AFTER_MS = 15_000;
const UNANSWERED_AFTER_LONG_MS = 250;

export class Liveness {
  #env;
  #handlers;
  /** @type {any} */
  #timer = null;
  #running = false;
  #dueAt = 0;
  #pingAt = 0;
  /** When the first question was asked that nothing has answered. @type {number|null} */
  #askedAt = null;
  #patience = UNANSWERED_MS;
  /** How long the last answer took. */
  #answerMs = 0;
  /** When the line is given up. */
  #silentAt = 0;
  /** A late look was excused since something was heard. */
  #excused = false;
  /** @type {boolean} */
  inDoubt = false;

  /**
   * @param {import('./env.js').Env} env
   * @param {object} handlers
   * @param {() => void} handlers.ask       sends a PING
   * @param {() => void} handlers.onDoubt
   * @param {() => void} handlers.onRelief  after `onDoubt`: something was heard
   * @param {() => void} handlers.onSilent
   */
  constructor(env, handlers) {
    this.#env = env;
    this.#handlers = handlers;
  }

  /** A new connection. */
  start() {
    const now = this.#env.now();
    this.#running = true;
    this.#excused = this.inDoubt = false;
    this.#askedAt = null;
    this.#patience = UNANSWERED_MS;
    this.#silentAt = now + SILENCE_MS;
    this.#pingAt = now + PING_EVERY_MS;
    this.#schedule();
  }

  stop() {
    this.#running = this.inDoubt = false;
    this.#env.clearTimeout(this.#timer);
  }

  /** A question was sent. */
  noteAsked() {
    if (!this.#running) return;
    // Of the timers of a page that wakes, another one may be the first.
    if (this.#lateBy > LATE_MS && !this.#excused) this.#look();
    if (this.#askedAt !== null) return;
    this.#askedAt = this.#env.now();
    this.#schedule();
  }

  /** Something came from the server. */
  noteHeard() {
    if (!this.#running) return;
    const now = this.#env.now();
    if (this.#askedAt !== null) this.#answerMs = now - this.#askedAt;
    this.#askedAt = null;
    this.#patience = UNANSWERED_MS;
    this.#excused = false;
    this.#silentAt = now + SILENCE_MS;
    if (!this.inDoubt) return;
    this.inDoubt = false;
    this.#handlers.onRelief();
  }

  /**
   * The page woke, or the network came back or changed: asks, and is soon in doubt.
   * @param {number} [stoodStillMs] for how long at least no answer could be given
   */
  wake(stoodStillMs = 0) {
    if (!this.#running) return;
    this.#excused = true;
    this.#askAnew(stoodStillMs);
    this.#silentAt = this.#env.now() + SILENCE_AFTER_WAKING_MS;
    this.#schedule();
  }

  /** How late the next look is already, ms. */
  get #lateBy() {
    return this.#env.now() - this.#dueAt;
  }

  /** @param {number} stoodStillMs */
  #askAnew(stoodStillMs) {
    const ended = stoodStillMs >= ENDED_AFTER_MS && !this.#env.hidden();
    const least = ended ? UNANSWERED_AFTER_LONG_MS : UNANSWERED_AFTER_WAKING_MS;
    this.#askedAt = null;
    this.#patience = Math.min(UNANSWERED_MS, Math.max(least, 2 * this.#answerMs));
    this.#ask();
  }

  #ask() {
    this.#pingAt = this.#env.now() + PING_EVERY_MS;
    this.#handlers.ask();
    this.noteAsked();
  }

  #look() {
    const now = this.#env.now();
    const lateBy = this.#lateBy;
    this.#dueAt = now;
    const unanswered = this.#askedAt !== null && now - this.#askedAt >= this.#patience;
    const silent = now >= this.#silentAt;
    if ((unanswered || silent) && lateBy > LATE_MS && !this.#excused) {
      this.#excused = true;
      this.#silentAt = Math.max(this.#silentAt, now + SILENCE_AFTER_WAKING_MS);
      this.#askAnew(lateBy);
    } else if (silent) {
      return this.#handlers.onSilent();
    } else {
      const doubt = unanswered && !this.inDoubt;
      this.inDoubt ||= doubt;
      if (doubt || now >= this.#pingAt) this.#ask();
      if (doubt) this.#handlers.onDoubt();
    }
    this.#schedule();
  }

  #schedule() {
    if (!this.#running) return;
    const now = this.#env.now();
    this.#env.clearTimeout(this.#timer);
    const judgeAt = this.#askedAt === null || this.inDoubt ? Infinity : this.#askedAt + this.#patience;
    this.#dueAt = Math.max(now, Math.min(this.#pingAt, this.#silentAt, judgeAt));
    this.#timer = this.#env.setTimeout(() => this.#look(), this.#dueAt - now);
  }
}
