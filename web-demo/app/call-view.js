/** Camera and microphone: one tile for each person in the call. */
import { onChange } from './change.js';
import { byId, h, listen, setText } from './dom.js';
import { icon, setIcon } from './icons.js';
import { hueOf, initials } from './identity.js';
import { toast } from './toast.js';

/** @typedef {import('./types.js').Ctx} Ctx */
/** @typedef {ReturnType<typeof makeTile>} Tile */

/** @param {Ctx} ctx */
export function setupCall({ room, call, signal }) {
  const box = byId('tiles', HTMLElement);
  const button = byId('call-button', HTMLButtonElement);
  const note = h('p', { class: 'tiles-note' }, 'You are in the call. Others appear when they join it.');
  /** @type {Map<string, Tile>} */
  const tiles = new Map();
  /** @type {Tile | null} */
  let own = null;
  let joining = false;
  signal.addEventListener('abort', () => {
    box.replaceChildren();
    box.hidden = true;
  }, { once: true });

  const nameOf = (/** @type {string} */ userId) => room.members.find((m) => m.userId === userId)?.username ?? 'Somebody';

  const showButton = () => {
    const on = own !== null;
    const label = joining ? 'Joining…' : on ? 'Leave call' : 'Join call';
    if (button.dataset.label === label) return;
    button.dataset.label = label;
    button.classList.toggle('call-on', on);
    button.disabled = joining;
    button.setAttribute('aria-label', label);
    button.replaceChildren(icon(on ? 'x' : 'camera'), h('span', { class: 'label' }, label));
  };

  async function join() {
    joining = true;
    showButton();
    try {
      try {
        await call.start({ audio: true, video: true });
      } catch (error) {
        // Many machines have a microphone and no camera: they can still talk.
        if (!isMissing(error)) throw error;
        await call.start({ audio: true, video: false });
      }
      if (signal.aborted) return;
      showOwn();
    } catch (error) {
      toast(mediaSentence(error));
    } finally {
      joining = false;
      showButton();
    }
  }

  function hangUp() {
    const tile = own;
    own = null; // First: stopping tells of it, and that must not bring us back here.
    call.stop();
    tile?.element.remove();
    for (const peer of tiles.values()) peer.element.remove();
    tiles.clear();
    note.remove();
    box.hidden = true;
    showButton();
  }

  function showOwn() {
    const stream = localStream(call);
    own ??= makeTile(room.self.userId, { own: true });
    own.show(stream, '', 'You');
    const mic = own.tool('mic', 'Mute your microphone');
    const camera = own.tool('camera', 'Turn your camera off');
    if (mic && camera) {
      toggle(mic, ['mic', 'micOff'], ['Mute your microphone', 'Unmute your microphone'], (off) => call.setMuted(off));
      toggle(camera, ['camera', 'cameraOff'], ['Turn your camera off', 'Turn your camera on'], (off) => {
        call.setCamera(!off);
        own?.element.classList.toggle('no-video', off || !stream?.getVideoTracks().length);
      });
    }
    box.hidden = false;
    box.prepend(own.element);
    showPeers();
  }

  function showPeers() {
    if (!own) return;
    for (const [userId, peer] of call.peers) {
      let tile = tiles.get(userId);
      if (!tile) {
        tile = makeTile(userId, { own: false });
        tiles.set(userId, tile);
        box.append(tile.element);
      }
      tile.show(peer.stream ?? null, stateText(peer.state), nameOf(userId));
    }
    for (const [userId, tile] of tiles) {
      if (call.peers.has(userId)) continue;
      tile.element.remove();
      tiles.delete(userId);
    }
    if (tiles.size) note.remove();
    else box.append(note);
  }

  button.onclick = () => (own ? hangUp() : void join());
  listen(call, 'peer', showPeers, signal);
  listen(call, 'peer-gone', showPeers, signal);
  listen(call, 'local', () => {
    if (!own) return;
    if (localStream(call)) showOwn();
    else hangUp();
  }, signal);
  listen(call, 'error', () => toast('Somebody in the call could not be reached. Their network may not allow it.'), signal);
  onChange(room, showPeers, signal);
  showButton();
}

/** @param {import('./types.js').Call} call @returns {MediaStream | null} */
function localStream(call) {
  return call.local instanceof MediaStream ? call.local : null;
}

/** @param {string} userId @param {{own: boolean}} options */
function makeTile(userId, { own }) {
  const video = h('video', { attrs: { playsinline: '', autoplay: '' } });
  // One's own voice must not come back; the picture is mirrored, as people know themselves.
  video.muted = own;
  const label = h('bdi');
  const avatar = h('span', { class: 'avatar', attrs: { 'aria-hidden': 'true' }, vars: { '--hue': hueOf(userId) } });
  const tools = h('div', { class: 'tile-tools' });
  const element = h('div', { class: `tile no-video${own ? ' mirror' : ''}`, vars: { '--hue': hueOf(userId) } }, video, avatar, h('span', { class: 'tile-name' }, label), tools);
  return {
    element,
    /** @param {MediaStream | null} stream @param {string} state @param {string} name */
    show(stream, state, name) {
      if (video.srcObject !== stream) {
        video.srcObject = stream;
        video.play().catch(() => {
          // The browser wants a tap first; autoplay starts it then.
        });
      }
      const seen = stream?.getVideoTracks().some((track) => track.readyState === 'live' && !track.muted) ?? false;
      element.classList.toggle('no-video', !(own ? stream?.getVideoTracks().some((track) => track.enabled) : seen));
      setText(label, state ? `${name}, ${state}` : name);
      setText(avatar, initials(name));
      for (const track of own ? [] : stream?.getVideoTracks() ?? []) {
        track.onmute = track.onunmute = track.onended = () => element.classList.toggle('no-video', track.muted || track.readyState !== 'live');
      }
    },
    /** Null when it is there already. @param {string} name @param {string} label */
    tool(name, label) {
      if (tools.querySelector(`[data-tool=${name}]`)) return null;
      const tool = h('button', { class: 'icon-button', attrs: { type: 'button', 'data-tool': name, 'aria-label': label, 'aria-pressed': 'false' } });
      tools.append(tool);
      return tool;
    },
  };
}

/**
 * @param {HTMLButtonElement} button @param {[string, string]} icons @param {[string, string]} labels
 * @param {(off: boolean) => void} apply
 */
function toggle(button, icons, labels, apply) {
  let off = false;
  const show = () => {
    setIcon(button, icons[Number(off)]);
    button.setAttribute('aria-label', labels[Number(off)]);
    button.title = labels[Number(off)];
    button.setAttribute('aria-pressed', String(off));
  };
  button.onclick = () => {
    off = !off;
    apply(off);
    show();
  };
  show();
}

/** @param {string} state an RTCPeerConnectionState */
function stateText(state) {
  if (state === 'connected') return '';
  if (state === 'failed') return 'no connection';
  if (state === 'disconnected') return 'reconnecting…';
  return 'connecting…';
}

/** @param {unknown} error */
const isMissing = (error) => error instanceof DOMException && (error.name === 'NotFoundError' || error.name === 'OverconstrainedError');

/** @param {unknown} error */
function mediaSentence(error) {
  const name = error instanceof DOMException ? error.name : '';
  if (name === 'NotAllowedError') return 'The browser does not allow the camera and microphone here. Allow them next to the address and try again.';
  if (name === 'NotFoundError') return 'No camera or microphone was found.';
  if (name === 'NotReadableError') return 'Another program is using the camera or microphone.';
  if (!window.isSecureContext) return 'Camera and microphone need an https address.';
  return 'The call could not be started.';
}
