/**
 * Media keys, head sets, lock screens and the picture-in-picture window: a person's hand, which no input event of the
 * page tells of. Left alone, the browser would pause this one element; as handlers of the Media Session they command
 * the room.
 */

const STEP_S = 10;

/** @typedef {{action: string, seekOffset?: number|null, seekTime?: number|null}} Details */

export class MediaSessionControls {
  #room;
  #session;
  #denied;
  /** @type {MediaSessionAction[]} */
  #actions = ['play', 'pause', 'seekto', 'seekbackward', 'seekforward'];
  #show = () => {
    if (this.#session) this.#session.playbackState = this.#room.url === null ? 'none' : this.#room.wantsPlaying ? 'playing' : 'paused';
  };

  /**
   * @param {import('./room.js').Room} room
   * @param {MediaSession|undefined} session
   * @param {(detail: {action: string, code: string}) => void} denied
   */
  constructor(room, session, denied) {
    this.#room = room;
    this.#session = session;
    this.#denied = denied;
    for (const action of this.#actions) this.#handle(action, (details) => this.#command(/** @type {Details} */ (details)));
    room.addEventListener('change', this.#show);
    this.#show();
  }

  stop() {
    this.#room.removeEventListener('change', this.#show);
    for (const action of this.#actions) this.#handle(action, null);
    if (this.#session) this.#session.playbackState = 'none';
  }

  /**
   * A browser without that action throws.
   * @param {MediaSessionAction} action
   * @param {MediaSessionActionHandler|null} handler
   */
  #handle(action, handler) {
    try {
      this.#session?.setActionHandler(action, handler);
    } catch {
      this.#actions = this.#actions.filter((other) => other !== action);
    }
  }

  /** @param {Details} details */
  #command({ action, seekOffset, seekTime }) {
    const kind = action.startsWith('seek') ? 'seek' : action;
    if (!this.#room.self.canControl) return this.#denied({ action: kind, code: 'NOT_IN_CONTROL' });
    this.#send(action, seekOffset || STEP_S, seekTime ?? 0).catch((error) => {
      this.#denied({ action: kind, code: error.code ?? 'INTERNAL' });
    });
  }

  /**
   * @param {string} action
   * @param {number} offset s
   * @param {number} time s
   */
  #send(action, offset, time) {
    const room = this.#room;
    switch (action) {
      case 'play':
        return room.play();
      case 'pause':
        return room.pause();
      case 'seekto':
        return room.seek(Math.max(0, time));
      default:
        return room.seek(Math.max(0, room.positionNow() + (action === 'seekforward' ? offset : -offset)));
    }
  }
}
