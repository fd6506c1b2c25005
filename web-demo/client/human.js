/**
 * Whether a person has just touched the page. What a media element does is a command to the room only then: browsers and
 * player engines pause, seek and change the rate of an element by themselves, and media events don't say whose doing they
 * are. Only trusted input events count; `navigator.userActivation` does not serve, because it stays set for seconds after
 * any key in the chat.
 */

/** A media element answers its controls at once; a listener of the page may take a moment. */
const ANSWERS_WITHIN_MS = 1000;

/** Keys that write, or that act on the browser instead of the film. */
const NOT_FOR_THE_FILM = new Set(['Tab', 'Escape', 'Shift', 'Control', 'Alt', 'AltGraph', 'Meta', 'CapsLock', 'Dead', 'Unidentified']);

const TEXT_INPUTS = new Set(['text', 'search', 'url', 'tel', 'email', 'password', 'number', 'date', 'time', 'datetime-local', 'month', 'week']);

export class HumanInput {
  #video;
  #env;
  #stop;
  #at = -Infinity;
  #onPlayerAt = -Infinity;
  /** The press that goes on has become a command of the page's. */
  #spent = false;
  /** A pointer is down: on a time line, that is a drag. */
  held = false;

  /**
   * @param {HTMLVideoElement} video
   * @param {import('./env.js').Env} env
   */
  constructor(video, env) {
    this.#video = video;
    this.#env = env;
    this.#stop = env.onInput((event) => this.#notice(event));
  }

  /** Whether a person may be behind what the element does at this moment. */
  get recent() {
    return this.#shows || this.#env.now() - this.#at < ANSWERS_WITHIN_MS;
  }

  /** The same, but only by a touch of the player itself: its own controls, or a slider. */
  get recentOnPlayer() {
    return this.#shows || this.#env.now() - this.#onPlayerAt < ANSWERS_WITHIN_MS;
  }

  /**
   * What a person did has become a command of the page's: what the element does from here on is not their doing once more,
   * and neither is the rest of that press.
   */
  spend() {
    this.#spent = true;
    this.#at = this.#onPlayerAt = -Infinity;
  }

  stop() {
    this.#stop();
  }

  /**
   * Safari's full-screen player and its picture-in-picture window have controls of their own, which no event tells of.
   */
  get #shows() {
    const mode = /** @type {any} */ (this.#video).webkitPresentationMode;
    return mode === 'fullscreen' || mode === 'picture-in-picture';
  }

  /** @param {Event} event */
  #notice(event) {
    if (!event.isTrusted) return;
    const { type } = event;
    const pointer = /** @type {PointerEvent} */ (event);
    if (type === 'pointerdown' || type === 'keydown') this.#spent = false;
    if (type === 'pointermove') {
      // Without a button it is only a pointer that passes by; the end of the last press may have been lost.
      if (pointer.buttons === 0) this.held = false;
      if (!this.held) return;
    } else if (type === 'pointerdown') this.held = true;
    else if (type === 'pointerup' || type === 'pointercancel') this.held = false;
    else if (type.startsWith('key') && !isForTheFilm(/** @type {KeyboardEvent} */ (event))) return;
    if (this.#spent) return;
    this.#at = this.#env.now();
    if (this.#isOnPlayer(event)) this.#onPlayerAt = this.#at;
  }

  /** @param {Event} event */
  #isOnPlayer(event) {
    const [innermost] = event.composedPath();
    return event.composedPath().includes(this.#video) || /** @type {any} */ (innermost)?.type === 'range';
  }
}

/** @param {KeyboardEvent} event */
function isForTheFilm(event) {
  if (event.ctrlKey || event.metaKey || event.altKey || NOT_FOR_THE_FILM.has(event.key)) return false;
  const target = /** @type {any} */ (event.composedPath()[0] ?? event.target);
  const writes = target?.isContentEditable || target?.tagName === 'TEXTAREA' || target?.tagName === 'SELECT';
  return !writes && !(target?.tagName === 'INPUT' && TEXT_INPUTS.has(target.type));
}
