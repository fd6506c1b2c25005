/** The controls over the film. Play, pause, seek and rate are the room's; volume and full screen are one's own. */
import { onChange } from './change.js';
import { byId, every, h, listen, setText, setVar, words } from './dom.js';
import { clockText, driftTone, isolate, signedMs, spokenTime } from './format.js';
import { icon, setIcon } from './icons.js';
import { longStorage } from './identity.js';
import { attempt, toast } from './toast.js';
import { setupStageOverlays } from './stage.js';

const VOLUME_KEY = 'tandem.volume';
const IDLE_MS = 2600;
const STEP_S = 5;
/** Several presses of an arrow become one seek. */
const STEP_SETTLE_MS = 220;

/** @typedef {ReturnType<typeof setupPlayer>} Player */

/** @param {import('./types.js').Ctx} ctx */
export function setupPlayer(ctx) {
  const { room, sync, video, signal } = ctx;
  const stage = byId('stage', HTMLElement);
  const playButton = byId('play', HTMLButtonElement);
  const rate = byId('rate', HTMLSelectElement);
  const chip = byId('drift-chip', HTMLElement);
  const scrubber = setupScrubber(ctx, deny);
  const overlays = setupStageOverlays(ctx);

  function deny() {
    const host = room.members.find((m) => m.isHost);
    toast(host ? `${isolate(host.username)} has the controls. Guests can’t play, pause or seek in this room.` : 'Nobody hosts this room at the moment.');
  }

  async function toggle() {
    if (!room.url) return;
    // The browser has stopped this player alone: the press is for it, not for the room.
    if (sync.limit === 'paused') return sync.resume({ muted: video.muted });
    if (!room.self.canControl) return deny();
    // Before the members' players have agreed on a length, this one's is what there is.
    const beyond = room.duration === null && Number.isFinite(video.duration) && room.positionNow() >= video.duration - 0.05;
    const atEnd = room.ended || (beyond && sync.limit !== 'live');
    const playing = room.wantsPlaying && !atEnd;
    await attempt(() => (playing ? room.pause() : atEnd ? room.play(0) : room.play()));
  }

  /** @type {{target: number, timer: ReturnType<typeof setTimeout>} | null} */
  let stepping = null;
  /** @param {number} direction */
  function step(direction) {
    if (!room.url) return;
    if (!room.self.canControl) return deny();
    if (stepping) clearTimeout(stepping.timer);
    const from = stepping?.target ?? room.positionNow();
    const last = Number.isFinite(video.duration) ? video.duration : Infinity;
    const target = Math.min(last, Math.max(0, from + direction * STEP_S));
    scrubber.preview(target);
    flash(direction > 0 ? 'forward' : 'back', clockText(target));
    const timer = setTimeout(() => {
      stepping = null;
      void attempt(() => room.seek(target)).then(() => scrubber.preview(null));
    }, STEP_SETTLE_MS);
    stepping = { target, timer };
  }

  function toggleMute() {
    video.muted = !video.muted;
  }

  async function toggleFullscreen() {
    try {
      if (document.fullscreenElement) await document.exitFullscreen();
      else if (stage.requestFullscreen) await stage.requestFullscreen();
      // An iPhone gives full screen only to the video itself.
      else /** @type {{webkitEnterFullscreen?: () => void}} */ (video).webkitEnterFullscreen?.();
    } catch {
      toast('The browser did not allow full screen.');
    }
  }

  /** @param {string} name @param {string} text */
  function flash(name, text) {
    const box = byId('flash', HTMLElement);
    box.replaceChildren(icon(name), ...(text ? [h('span', {}, ...words(text))] : []));
    box.classList.remove('show');
    void box.offsetWidth; // Restarts the animation.
    box.classList.add('show');
  }

  playButton.onclick = () => void toggle();
  byId('mute', HTMLButtonElement).onclick = toggleMute;
  const fullscreen = byId('fullscreen', HTMLButtonElement);
  fullscreen.onclick = () => void toggleFullscreen();
  const showFullscreen = () => {
    setIcon(fullscreen, document.fullscreenElement ? 'shrink' : 'expand');
    fullscreen.setAttribute('aria-label', document.fullscreenElement ? 'Leave full screen' : 'Full screen');
  };
  listen(document, 'fullscreenchange', showFullscreen, signal);
  showFullscreen();
  rate.onchange = async () => {
    if (!room.self.canControl) deny();
    else await attempt(() => room.setRate(Number(rate.value)));
    update();
  };
  setupVolume(video, signal);
  setupIdle(stage, video, toggle, signal);
  listen(video, 'dblclick', () => void toggleFullscreen(), signal);
  // Somebody else's hand on the controls should be seen: what happened and who did it.
  listen(room, 'playback', (event) => {
    const { cause, message } = event.detail;
    const who = message?.userId === room.self.userId ? '' : room.members.find((m) => m.userId === message?.userId)?.username ?? '';
    if (cause === 'PLAY_PAUSE') flash(message.control === 'play' ? 'play' : 'pause', who && isolate(who));
    else if (cause === 'SEEK_PAUSE' && who) flash('forward', `${isolate(who)} went to ${clockText(message.currentTime)}`);
    update();
  }, signal);

  function update() {
    const { playing } = room.playback;
    const wants = room.wantsPlaying && sync.limit !== 'paused';
    const can = room.self.canControl;
    setIcon(playButton, can ? (wants ? 'pause' : 'play') : 'lock');
    playButton.toggleAttribute('data-locked', !can);
    playButton.setAttribute('aria-label', `${wants ? 'Pause' : 'Play'}${can ? '' : ' (only the host can)'}`);
    showRate(rate, room.playback.rate);
    const drift = room.url && playing ? sync.drift : null;
    chip.dataset.tone = driftTone(drift);
    setText(chip, playing ? signedMs(drift) : wants ? 'waiting' : 'paused');
    chip.title = `How far your player is ahead of the room (+) or behind it (−); mode: ${sync.mode}`;
    scrubber.update();
    overlays.update();
  }
  every(250, update, signal);
  onChange(room, update, signal);
  return { toggle, step, toggleMute, toggleFullscreen };
}

/**
 * A rate that is not in the list (another client's) is shown all the same.
 * @param {HTMLSelectElement} select
 * @param {number} rate
 */
function showRate(select, rate) {
  const value = String(rate);
  if (select.value === value) return;
  if (![...select.options].some((o) => o.value === value)) select.append(new Option(`${Number(rate.toFixed(2))}×`, value));
  select.value = value;
}

/**
 * A native range input: keyboard and screen reader come with it. Dragging shows the time; letting go seeks.
 * @param {import('./types.js').Ctx} ctx @param {() => void} deny
 */
function setupScrubber({ room, video, signal }, deny) {
  const input = byId('scrub', HTMLInputElement);
  const tip = byId('scrub-tip', HTMLOutputElement);
  const played = byId('scrub-played', HTMLElement);
  const buffered = byId('scrub-buffered', HTMLElement);
  let dragging = false;
  /** @type {number | null} */
  let previewed = null;
  const duration = () => (Number.isFinite(video.duration) && video.duration > 0 ? video.duration : 0);

  listen(input, 'input', () => {
    if (!room.self.canControl) return;
    dragging = true;
    showTip(Number(input.value));
    update();
  }, signal);
  listen(input, 'change', () => {
    dragging = false;
    tip.hidden = true;
    if (!room.self.canControl) {
      deny();
      return update();
    }
    const target = Number(input.value);
    previewed = target;
    void attempt(() => room.seek(target)).then(() => {
      previewed = null;
      update();
    });
  }, signal);
  listen(input, 'pointermove', (/** @type {PointerEvent} */ event) => {
    const box = input.getBoundingClientRect();
    const share = Math.min(1, Math.max(0, (event.clientX - box.left - 7) / (box.width - 14)));
    if (event.pointerType === 'mouse' || dragging) showTip(share * duration());
  }, signal);
  listen(input, 'pointerleave', () => {
    if (!dragging) tip.hidden = true;
  }, signal);

  /** @param {number} seconds */
  function showTip(seconds) {
    if (!duration()) return;
    tip.hidden = false;
    setText(tip, clockText(seconds));
    setVar(tip, '--x', String(seconds / duration()));
  }

  function update() {
    const length = duration();
    const now = dragging ? Number(input.value) : previewed ?? (video.readyState > 0 ? video.currentTime : room.positionNow());
    input.max = String(length || 1);
    if (!dragging) input.value = String(Math.min(now, length || now));
    input.setAttribute('aria-valuetext', `${spokenTime(now)} of ${spokenTime(length)}`);
    // Not aria-disabled: pressed without the right, these controls answer with the reason.
    input.toggleAttribute('data-locked', !room.self.canControl);
    setVar(played, '--at', String(length ? Math.min(1, now / length) : 0));
    setText(byId('time-now', HTMLElement), clockText(now));
    setText(byId('time-total', HTMLElement), length ? clockText(length) : '–:––');
    drawBuffered(length);
  }

  /** @param {number} length */
  function drawBuffered(length) {
    const count = length ? video.buffered.length : 0;
    while (buffered.childElementCount > count) buffered.lastElementChild?.remove();
    while (buffered.childElementCount < count) buffered.append(h('div', { class: 'scrub-range' }));
    for (let i = 0; i < count; i++) {
      const bar = /** @type {HTMLElement} */ (buffered.children[i]);
      bar.style.left = `${(video.buffered.start(i) / length) * 100}%`;
      bar.style.right = `${100 - (video.buffered.end(i) / length) * 100}%`;
    }
  }

  return {
    update,
    /** Shows a position that is about to be asked for. @param {number | null} target */
    preview(target) {
      previewed = target;
      update();
    },
  };
}

/** @param {HTMLVideoElement} video @param {AbortSignal} signal */
function setupVolume(video, signal) {
  const mute = byId('mute', HTMLButtonElement);
  const volume = byId('volume', HTMLInputElement);
  const stored = Number(longStorage.getItem(VOLUME_KEY) ?? '1');
  video.volume = stored >= 0 && stored <= 1 ? stored : 1;
  const show = () => {
    const silent = video.muted || video.volume === 0;
    setIcon(mute, silent ? 'muted' : 'volume');
    mute.setAttribute('aria-label', silent ? 'Unmute' : 'Mute');
    volume.value = String(silent ? 0 : video.volume);
  };
  volume.oninput = () => {
    video.volume = Number(volume.value);
    video.muted = video.volume === 0;
    longStorage.setItem(VOLUME_KEY, volume.value);
  };
  listen(video, 'volumechange', show, signal);
  show();
}

/**
 * The controls go after a while of watching. A mouse click on the film plays or pauses; a finger only brings the
 * controls back, or nobody could look at the time without stopping the film for everyone.
 * @param {HTMLElement} stage @param {HTMLVideoElement} video @param {() => void} toggle @param {AbortSignal} signal
 */
function setupIdle(stage, video, toggle, signal) {
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  const wake = () => {
    stage.classList.remove('idle');
    clearTimeout(timer);
    timer = setTimeout(() => {
      if (!video.paused) stage.classList.add('idle');
    }, IDLE_MS);
  };
  for (const type of ['pointermove', 'pointerdown', 'keydown', 'focusin']) listen(stage, type, wake, signal);
  listen(stage, 'pointerleave', () => !video.paused && stage.classList.add('idle'), signal);
  listen(video, 'pause', wake, signal);
  listen(video, 'play', wake, signal);
  listen(video, 'click', (/** @type {PointerEvent} */ event) => {
    if (event.pointerType !== 'touch') toggle();
  }, signal);
  signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  wake();
}
