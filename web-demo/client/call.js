/**
 * A call among the members of a room: a mesh of peer connections, signaled over OFFER, ANSWER and ICE_CANDIDATE.
 *
 * Being in a room is not being in its call. Who starts says "here" to every other member (CUSTOM `tandem.call`, to each
 * one alone); those who are in the call answer with an offer, the others take no notice. A v2 client knows no "here":
 * it gets an offer at once, as it expects.
 */
import { addressOf } from './address.js';
import { Peer } from './peer.js';

const NAMESPACE = 'tandem.call';

/**
 * Events: `peer` {userId, stream, state} whenever one of them changes · `peer-gone` {userId} · `local` {stream} ·
 * `error` Error.
 */
export class Call extends EventTarget {
  #room;
  #iceServers;
  /** @type {Map<string, Peer>} */
  #connections = new Map();
  #running = false;
  /** @type {(() => void)[]} */
  #undo = [];

  /** @type {MediaStream|null} */
  local = null;
  muted = false;
  camera = true;

  /**
   * @param {import('./room.js').Room} room
   * @param {{iceServers?: RTCIceServer[]}} [options] taken from the server when absent
   */
  constructor(room, { iceServers } = {}) {
    super();
    this.#room = room;
    this.#iceServers = iceServers ?? null;
  }

  /** @returns {Map<string, {stream: MediaStream|null, state: RTCPeerConnectionState}>} by userId */
  get peers() {
    return new Map([...this.#connections].map(([userId, { stream, state }]) => [userId, { stream, state }]));
  }

  /**
   * @param {{audio?: boolean|MediaTrackConstraints, video?: boolean|MediaTrackConstraints}} [media]
   *   nothing of both: watch and listen only
   */
  async start({ audio = true, video = true } = {}) {
    if (this.#running) return;
    this.#running = true;
    try {
      if (audio || video) this.local = await this.#devices().getUserMedia({ audio, video });
      this.#iceServers ??= await this.#fetchIceServers();
    } catch (error) {
      this.stop();
      throw error;
    }
    if (!this.#running) return this.#stopTracks(); // Stopped while the browser asked for the camera.
    this.camera = Boolean(video);
    this.#room.setInCall(true);
    this.#emit('local', { stream: this.local });
    this.#on('signal', (message) => this.#onSignal(message));
    this.#on('custom', (message) => this.#onCustom(message));
    this.#on('change', () => this.#dropLeavers());
    this.#on('state', (state) => state === 'joined' && this.#onRejoined());
    this.#announce();
  }

  stop() {
    if (!this.#running) return;
    this.#running = false;
    this.#room.setInCall(false);
    for (const userId of [...this.#connections.keys()]) {
      this.#say(userId, 'gone');
      this.#drop(userId);
    }
    this.#undo.splice(0).forEach((undo) => undo());
    this.#stopTracks();
    this.#emit('local', { stream: null });
  }

  /** @param {boolean} muted */
  setMuted(muted) {
    this.muted = muted;
    for (const track of this.local?.getAudioTracks() ?? []) track.enabled = !muted;
  }

  /** @param {boolean} on asks for the camera if the call was started without one */
  async setCamera(on) {
    this.camera = on;
    const tracks = this.local?.getVideoTracks() ?? [];
    for (const track of tracks) track.enabled = on;
    if (!on || tracks.length > 0 || !this.#running) return;
    const [track] = (await this.#devices().getUserMedia({ video: true })).getVideoTracks();
    this.local ??= new MediaStream();
    this.local.addTrack(track);
    for (const peer of this.#connections.values()) peer.addTrack(track, this.local);
    this.#emit('local', { stream: this.local });
  }

  #announce() {
    for (const { userId, connected, protocol } of this.#others()) {
      if (!connected || this.#connections.has(userId)) continue;
      if (protocol >= 3) this.#say(userId, 'here');
      else this.#connect(userId).invite();
    }
  }

  /** @param {any} message */
  #onCustom({ userId, namespace, payload }) {
    if (namespace !== NAMESPACE || userId === this.#room.self.userId) return;
    if (payload?.kind === 'gone') this.#drop(userId);
    if (payload?.kind !== 'here') return;
    // A member says "here" while it has no connection to us: a peer connection of it that is still open is of its
    // earlier page.
    this.#drop(userId);
    this.#connect(userId).invite();
  }

  /** @param {any} message */
  #onSignal(message) {
    const userId = message.from;
    if (typeof userId !== 'string') return;
    const known = this.#connections.get(userId);
    if (!known && message.type !== 'OFFER') return;
    (known ?? this.#connect(userId)).receive(message);
  }

  #onRejoined() {
    for (const peer of this.#connections.values()) peer.revive();
    this.#announce();
  }

  /** A member in grace keeps its peer connection: media flow past the server. */
  #dropLeavers() {
    const present = new Set(this.#others().map(({ userId }) => userId));
    for (const userId of [...this.#connections.keys()]) if (!present.has(userId)) this.#drop(userId);
  }

  /** @param {string} userId */
  #connect(userId) {
    const peer = new Peer(this.#room.env.RTCPeerConnection, {
      polite: this.#isPoliteTo(userId),
      iceServers: this.#iceServers ?? [],
      local: this.local,
      signal: (message) => this.#send({ ...message, to: userId }),
      changed: () => {
        if (this.#connections.get(userId) !== peer) return;
        this.#emit('peer', { userId, stream: peer.stream, state: peer.state });
      },
    });
    this.#connections.set(userId, peer);
    this.#emit('peer', { userId, stream: null, state: peer.state });
    return peer;
  }

  /**
   * Both sides must come to opposite answers. Slots are unique within an epoch and the same for both.
   * @param {string} userId
   */
  #isPoliteTo(userId) {
    const { self } = this.#room;
    const other = this.#others().find((member) => member.userId === userId);
    if (other && self.slot !== null && other.slot !== self.slot) return self.slot > other.slot;
    return self.userId > userId;
  }

  /** @param {string} userId */
  #drop(userId) {
    const peer = this.#connections.get(userId);
    if (!peer) return;
    this.#connections.delete(userId);
    peer.close();
    this.#emit('peer-gone', { userId });
  }

  #others() {
    return this.#room.members.filter(({ userId }) => userId !== this.#room.self.userId);
  }

  /**
   * @param {string} userId
   * @param {'here'|'gone'} kind
   */
  #say(userId, kind) {
    this.#send({ type: 'CUSTOM', namespace: NAMESPACE, payload: { kind }, to: userId });
  }

  /** @param {any} message */
  #send(message) {
    try {
      this.#room.send(message);
    } catch (error) {
      this.#emit('error', error); // An SDP above the size of a message.
    }
  }

  async #fetchIceServers() {
    const response = await this.#room.env.fetch(addressOf(this.#room.server, 'api/ice-servers'));
    if (!response.ok) throw new Error(`/api/ice-servers answered ${response.status}`);
    return (await response.json()).iceServers;
  }

  #devices() {
    const { mediaDevices } = this.#room.env;
    if (!mediaDevices) throw new Error('camera and microphone need a secure page (https or localhost)');
    return mediaDevices;
  }

  #stopTracks() {
    for (const track of this.local?.getTracks() ?? []) track.stop();
    this.local = null;
  }

  /**
   * @param {string} type
   * @param {(detail: any) => void} fn
   */
  #on(type, fn) {
    const listener = (/** @type {any} */ event) => fn(event.detail);
    this.#room.addEventListener(type, listener);
    this.#undo.push(() => this.#room.removeEventListener(type, listener));
  }

  /**
   * @param {string} type
   * @param {unknown} detail
   */
  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}
