/**
 * Whether the room means its film to play: it plays, or it stands at the ready gate and plays as soon as the gate
 * opens. An own command that is under way counts already, because the server decides the commands of one session in
 * order: a seek that follows a play is a seek of a playing film.
 */
export class Intention {
  #model;
  /** The latest own command that says whether to play. `at`: where it was committed. */
  #asked = /** @type {{playing: boolean, at: import('./session.js').Committed|null}|null} */ (null);

  /** @param {import('./model.js').RoomModel} model */
  constructor(model) {
    this.#model = model;
  }

  get playing() {
    const { playback, gate } = this.#model;
    return this.#underWay?.playing ?? (playback.playing || gate !== null);
  }

  /**
   * @param {boolean} playing what the command asks for
   * @param {Promise<import('./session.js').Committed>} committed
   */
  async ask(playing, committed) {
    const asked = (this.#asked = { playing, at: /** @type {import('./session.js').Committed|null} */ (null) });
    try {
      asked.at = await committed;
    } catch {
      // Refused, or lost with the connection: the room's own state is what there is to go by.
      if (this.#asked === asked) this.#asked = null;
    }
  }

  /** The acknowledgement may overtake the event: the command is under way until the model has reached its place. */
  get #underWay() {
    const at = this.#asked?.at;
    if (at && (at.epoch !== this.#model.epoch || this.#model.seq >= at.seq)) this.#asked = null;
    return this.#asked;
  }
}
