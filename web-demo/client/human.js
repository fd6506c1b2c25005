/**
 * Whether a person is behind what a media element does. That is a command to the room; what browsers and player engines
 * do by themselves (pause, seek, another rate) is not, and media events don't say whose doing they are.
 *
 * Two kinds of evidence. Input events that the page sees: pointer and keys, trusted ones only, and not what is typed
 * into a field. And touches of the element's own controls, whose events Chromium keeps to itself: then the page has a
 * user activation, with the pointer over the element or the focus on it. An activation lasts for seconds after any
 * press anywhere, so alone it proves nothing, and for seeks, which engines make of their own at any time, there must be
 * more.
 */

/** A media element answers its controls at once; a listener of the page may take a moment. */
const ANSWERS_WITHIN_MS = 1000;
/** A browser counts a page as activated for this long after a press. */
const ACTIVATED_MS = 5000;

/** Keys that act on the browser instead of the film. */
const NOT_FOR_THE_FILM = new Set(['Tab', 'Escape', 'Shift', 'Control', 'Alt', 'AltGraph', 'Meta', 'CapsLock', 'Dead', 'Unidentified']);

const TEXT_INPUTS = new Set(['text', 'search', 'url', 'tel', 'email', 'password', 'number', 'date', 'time', 'datetime-local', 'month', 'week']);

/**
 * @typedef {'play'|'pause'|'drag'|'seek'|'rate'} Act
 *   `drag`: a seek right behind a pause, as browsers make it of a press on the time line
 */

export class HumanInput {
  #video;
  #env;
  #stop;
  /** Time of the last input for the film, on the page or on the player. */
  #at = -Infinity;
  #onPlayerAt = -Infinity;
  /** Time of the last press that the page saw, or that the element's own controls have answered. */
  #pressedAt = -Infinity;
  #movedAt = -Infinity;
  /** The last press has become a command. */
  #spent = false;
  #held = false;

  /**
   * @param {HTMLVideoElement} video
   * @param {import('./env.js').Env} env
   */
  constructor(video, env) {
    this.#video = video;
    this.#env = env;
    this.#stop = env.onInput((event) => this.#notice(event));
  }

  /**
   * Whether a person may have done what the element has just done.
   * @param {Act} act
   * @param {boolean} [starving] the film stood still for want of data: an engine is likely to move it
   */
  did(act, starving = false) {
    const now = this.#env.now();
    if (now - (starving ? this.#onPlayerAt : this.#at) < ANSWERS_WITHIN_MS || this.#showsOwnWindow) return true;
    if (!this.#onOwnControls(act, now)) return false;
    this.#pressedAt = now;
    return true;
  }

  /** A pointer is down: on a time line, that is a drag. */
  get held() {
    return this.#held || this.#is(':active');
  }

  /**
   * Uses up a human action that became a command, by the page or by the element. Later acts of the element (an engine
   * that hops at the start) don't count as that action again, nor does the rest of that press, unless it goes on as a
   * drag.
   */
  spend() {
    this.#spent = true;
    this.#at = this.#onPlayerAt = -Infinity;
  }

  stop() {
    this.#stop();
  }

  /** Safari's full-screen player and its picture-in-picture window have controls of their own, without any event. */
  get #showsOwnWindow() {
    const mode = /** @type {any} */ (this.#video).webkitPresentationMode;
    return mode === 'fullscreen' || mode === 'picture-in-picture';
  }

  /**
   * @param {Act} act
   * @param {number} now
   */
  #onOwnControls(act, now) {
    const focused = /** @type {any} */ (this.#video.getRootNode?.())?.activeElement === this.#video;
    if (!this.#video.controls || !this.#env.userActive() || !(focused || this.#is(':hover'))) return false;
    // Neither browsers nor engines play, or stop and go elsewhere, while the page is seen and the film is sound.
    if (act !== 'seek' && act !== 'rate') return true;
    // An activation that no other press explains is one by the controls; else the pointer must be at work on them.
    return this.#is(':active') || now - this.#movedAt < ANSWERS_WITHIN_MS || now - this.#pressedAt > ACTIVATED_MS;
  }

  /** @param {string} pseudoClass */
  #is(pseudoClass) {
    return this.#video.matches?.(pseudoClass) ?? false;
  }

  /** @param {Event} event */
  #notice(event) {
    if (!event.isTrusted) return;
    const { type } = event;
    const now = this.#env.now();
    if (type === 'pointermove') {
      if (event.composedPath().includes(this.#video)) this.#movedAt = now;
      // Without a button it is only a pointer that passes by; the end of the last press may have been lost.
      if (/** @type {PointerEvent} */ (event).buttons === 0) this.#held = false;
      if (!this.#held) return;
      this.#spent = false;
    } else {
      this.#pressedAt = now;
      // A click without a pointer is a press of its own: assistive technology makes these.
      const press = type === 'pointerdown' || type === 'keydown' || (type === 'click' && /** @type {MouseEvent} */ (event).detail === 0);
      if (press) this.#spent = false;
      if (type.startsWith('pointer')) this.#held = type === 'pointerdown';
      if (type.startsWith('key') && !isForTheFilm(/** @type {KeyboardEvent} */ (event))) return;
    }
    if (this.#spent) return;
    this.#at = now;
    if (this.#isOnPlayer(event)) this.#onPlayerAt = now;
  }

  /** The player itself, or a slider: a page's own time line. @param {Event} event */
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
