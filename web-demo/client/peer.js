/**
 * One other member of a call: a peer connection under the "perfect negotiation" pattern. Both sides may offer at any
 * time; when offers cross, the polite one takes its own back.
 */

/**
 * @typedef {object} PeerOptions
 * @property {boolean} polite
 * @property {RTCIceServer[]} iceServers
 * @property {MediaStream|null} local
 * @property {(message: {type: string, offer?: any, answer?: any, candidate?: any}) => void} signal
 * @property {() => void} changed   its stream or its state did
 */

export class Peer {
  #connection;
  #polite;
  #signal;
  #makingOffer = false;
  #ignoringOffer = false;
  #closed = false;

  /** @type {MediaStream|null} */
  stream = null;

  /**
   * @param {typeof RTCPeerConnection} PeerConnection
   * @param {PeerOptions} options
   */
  constructor(PeerConnection, { polite, iceServers, local, signal, changed }) {
    this.#polite = polite;
    this.#signal = signal;
    const connection = new PeerConnection({ iceServers });
    this.#connection = connection;
    connection.onnegotiationneeded = () => this.#offer();
    connection.onicecandidate = ({ candidate }) => {
      if (candidate) signal({ type: 'ICE_CANDIDATE', candidate: candidate.toJSON?.() ?? candidate });
    };
    connection.ontrack = ({ streams }) => {
      this.stream = streams[0] ?? this.stream;
      changed();
    };
    connection.onconnectionstatechange = () => {
      if (connection.connectionState === 'failed') connection.restartIce();
      changed();
    };
    for (const track of local?.getTracks() ?? []) connection.addTrack(track, /** @type {MediaStream} */ (local));
  }

  /** @type {RTCPeerConnectionState} */
  get state() {
    return this.#closed ? 'closed' : this.#connection.connectionState;
  }

  /**
   * @param {MediaStreamTrack} track
   * @param {MediaStream} stream
   */
  addTrack(track, stream) {
    this.#connection.addTrack(track, stream);
  }

  /** Offers even without a track to send: to be able to watch and listen. */
  invite() {
    if (this.#connection.getTransceivers().length > 0) return; // Its tracks have asked for an offer already.
    this.#connection.addTransceiver('audio', { direction: 'recvonly' });
    this.#connection.addTransceiver('video', { direction: 'recvonly' });
  }

  /** After signaling was lost for a while: what was under way may have gone with it. */
  revive() {
    if (this.#connection.connectionState !== 'connected') this.#connection.restartIce();
  }

  /** @param {any} message OFFER, ANSWER or ICE_CANDIDATE of this member */
  async receive(message) {
    if (this.#closed) return;
    try {
      if (message.type === 'ICE_CANDIDATE') await this.#onCandidate(message.candidate);
      else await this.#onDescription(message.type === 'OFFER' ? message.offer : message.answer);
    } catch (error) {
      // A description from a connection that was replaced meanwhile, or nonsense: the next offer repairs it.
      if (!this.#closed) console.warn('tandem: a signal of a call was not usable', error);
    }
  }

  close() {
    this.#closed = true;
    this.#connection.onnegotiationneeded = null;
    this.#connection.onconnectionstatechange = null;
    this.#connection.close();
  }

  async #offer() {
    try {
      this.#makingOffer = true;
      await this.#connection.setLocalDescription();
      this.#sendDescription();
    } catch (error) {
      if (!this.#closed) console.warn('tandem: no offer could be made', error);
    } finally {
      this.#makingOffer = false;
    }
  }

  /** @param {RTCSessionDescriptionInit} description */
  async #onDescription(description) {
    const { signalingState } = this.#connection;
    const collision = description.type === 'offer' && (this.#makingOffer || signalingState !== 'stable');
    this.#ignoringOffer = !this.#polite && collision;
    if (this.#ignoringOffer) return;
    if (description.type === 'answer' && signalingState !== 'have-local-offer') return;
    await this.#connection.setRemoteDescription(description); // Rolls our own offer back if need be.
    if (description.type !== 'offer') return;
    await this.#connection.setLocalDescription();
    this.#sendDescription();
  }

  /** @param {RTCIceCandidateInit} candidate */
  async #onCandidate(candidate) {
    try {
      await this.#connection.addIceCandidate(candidate);
    } catch (error) {
      if (!this.#ignoringOffer) throw error; // Candidates of an offer that we refused fail, and may.
    }
  }

  #sendDescription() {
    const description = this.#connection.localDescription;
    if (this.#closed || !description) return;
    const plain = { type: description.type, sdp: description.sdp };
    this.#signal(description.type === 'offer' ? { type: 'OFFER', offer: plain } : { type: 'ANSWER', answer: plain });
  }
}
