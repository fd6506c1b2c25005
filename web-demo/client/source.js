/**
 * Loads the room's film into the media element, and loads it again when that may help: after an error, when somebody
 * chooses it anew, when another script has emptied the element. What an element shows is judged by its state, never by
 * `currentSrc` alone, which outlives `removeAttribute('src'); load()`.
 */

const RETRY_FIRST_MS = 3000;
const RETRY_MOST_MS = 60_000;
/** A film that played for so long before it failed has failed for the first time. */
const CALM_AFTER_MS = 300_000;

const NETWORK_EMPTY = 0;
const NETWORK_NO_SOURCE = 3;

/** @type {Record<number, string>} by MediaError.code */
const REASONS = { 2: 'network', 3: 'decode', 4: 'unsupported' };

export class SourceLoader {
  #room;
  #video;
  #env;
  #options;
  /** The film that was taken over or loaded. @type {{url: string, film: number|null}|null} */
  #taken = null;
  #tries = 0;
  #retryAt = Infinity;
  #failedAt = -Infinity;
  /** Why the film can't be shown; stays while it is tried again, until it can. @type {string|null} */
  failure = null;
  /** @type {(() => void)[]} */
  #undo = [];

  /**
   * @param {import('./room.js').Room} room
   * @param {HTMLVideoElement} video
   * @param {import('./sync-video.js').SyncOptions} options
   */
  constructor(room, video, { manageSource = true, crossOrigin } = {}) {
    this.#room = room;
    this.#video = video;
    this.#env = room.env;
    this.#options = { manageSource, crossOrigin };
    const element = /** @type {any} */ (video);
    // Corrections by rate must not be heard as a change of pitch.
    for (const name of ['preservesPitch', 'mozPreservesPitch', 'webkitPreservesPitch']) {
      if (name in element) element[name] = true;
    }
    // A member that has not buffered keeps the whole room waiting at the gate.
    video.preload = 'auto';
    const on = (/** @type {string} */ type, /** @type {() => void} */ fn) => {
      video.addEventListener(type, fn);
      this.#undo.push(() => video.removeEventListener(type, fn));
    };
    on('error', () => this.#noteFailure());
    on('loadedmetadata', () => this.#noteSuccess());
    on('emptied', () => manageSource || (this.failure = null)); // The page loads something else.
    this.#undo.push(this.#env.onPage('online', () => this.failure !== null && this.retry()));
    if (video.error) this.#noteFailure();
  }

  /** Whether loading the film is not the page's own doing. */
  get managed() {
    return this.#options.manageSource;
  }

  /** Loads the room's film if the element doesn't show it. @returns {number} ms after which to look again */
  follow() {
    const { url, film } = this.#room;
    if (!this.#options.manageSource || url === null || !isMediaUrl(url)) return Infinity;
    const chosen = this.#taken === null || this.#taken.url !== url || this.#taken.film !== film;
    if (chosen) {
      this.#taken = { url, film };
      this.#tries = 0;
      this.failure = null;
      if (!this.#shows(url)) this.#load(url);
      return Infinity;
    }
    if (this.failure === null && this.#isEmpty) this.#retryLater(this.#tries > 0);
    const left = this.#retryAt - this.#env.now();
    if (left > 0) return left;
    this.#load(url);
    return Infinity;
  }

  /** Loads the film again now. @returns {boolean} false when the element is somebody else's to load */
  retry() {
    if (!this.#options.manageSource || this.#taken === null) return false;
    this.#tries = 0;
    this.#load(this.#taken.url);
    return true;
  }

  stop() {
    this.#undo.forEach((undo) => undo());
  }

  /** @param {string} url */
  #load(url) {
    this.#retryAt = Infinity;
    if (this.#options.crossOrigin !== undefined) this.#video.crossOrigin = this.#options.crossOrigin;
    this.#video.src = url;
  }

  #noteFailure() {
    const now = this.#env.now();
    if (now - this.#failedAt > CALM_AFTER_MS) this.#tries = 0;
    this.#failedAt = now;
    this.failure = REASONS[this.#video.error?.code ?? 0] ?? 'unsupported';
    this.#retryLater(true);
  }

  #noteSuccess() {
    this.failure = null;
    this.#retryAt = Infinity;
    // The count of tries stays: a damaged film loads each time, and fails again when it gets there.
  }

  /** @param {boolean} wait */
  #retryLater(wait) {
    if (this.#retryAt !== Infinity) return;
    this.#retryAt = this.#env.now() + (wait ? Math.min(RETRY_MOST_MS, RETRY_FIRST_MS * 2 ** Math.max(0, this.#tries - 1)) : 0);
    this.#tries += 1;
  }

  get #isEmpty() {
    return this.#video.networkState === NETWORK_EMPTY && this.#video.readyState === 0;
  }

  /** Whether the element has that film already: the page's own `src`, or a player that stayed over a reconnect. */
  #shows(/** @type {string} */ url) {
    const { currentSrc, networkState, error } = this.#video;
    return !error && networkState !== NETWORK_EMPTY && networkState !== NETWORK_NO_SOURCE && currentSrc === new URL(url).href;
  }
}

/**
 * The URL was typed by another person: only what a player can fetch, never `javascript:` or `data:`.
 * @param {string} url
 */
function isMediaUrl(url) {
  try {
    return ['https:', 'http:', 'blob:'].includes(new URL(url).protocol);
  } catch {
    return false;
  }
}
