/** Loads the room's URL into the media element. */
export class SourceLoader {
  #room;
  #video;
  #options;
  /** @type {string|null} */
  #url = null;

  /**
   * @param {import('./room.js').Room} room
   * @param {HTMLVideoElement} video
   * @param {import('./sync-video.js').SyncOptions} options
   */
  constructor(room, video, { manageSource = true, crossOrigin } = {}) {
    this.#room = room;
    this.#video = video;
    this.#options = { manageSource, crossOrigin };
    const element = /** @type {any} */ (video);
    // Corrections by rate must not be heard as a change of pitch.
    for (const name of ['preservesPitch', 'mozPreservesPitch', 'webkitPreservesPitch']) {
      if (name in element) element[name] = true;
    }
    // A member that has not buffered keeps the whole room waiting at the gate.
    video.preload = 'auto';
  }

  follow() {
    const { url } = this.#room;
    if (!this.#options.manageSource || url === null || url === this.#url || !isMediaUrl(url)) return;
    this.#url = url;
    if (this.#video.currentSrc === url) return;
    if (this.#options.crossOrigin !== undefined) this.#video.crossOrigin = this.#options.crossOrigin;
    this.#video.src = url;
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
