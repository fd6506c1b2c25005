/** The cards over the film: no film, a film that can't be played, waiting for data, waiting for a tap. */
import { byId, listen, setText } from './dom.js';
import { sentence } from './errors.js';
import { isolate } from './format.js';
import { toast } from './toast.js';

/** Sentences for a film that doesn't play, by the reason that the player gives. @type {Record<string, string>} */
const MEDIA_SENTENCES = {
  network: 'The address stopped answering. Check that it can be reached from here.',
  decode: 'The file is damaged, or this browser can’t decode it.',
  unsupported: 'The address is not a video that this browser can play, or it can’t be reached from here.',
};

/** Shorter stalls are not worth a spinner. */
const STALL_MS = 350;

/** @param {import('./types.js').Ctx} ctx */
export function setupStageOverlays({ room, sync, video, signal }) {
  const stage = byId('stage', HTMLElement);
  const empty = byId('stage-empty', HTMLElement);
  const failed = byId('stage-error', HTMLElement);
  const spinner = byId('spinner', HTMLElement);
  const autoplay = byId('autoplay', HTMLElement);
  autoplay.hidden = true;
  let stalledSince = 0;

  const unmute = byId('unmute', HTMLButtonElement);
  unmute.hidden = true;
  signal.addEventListener('abort', sync.on('autoplay-blocked', ({ muted }) => {
    // Muted, the browser let it play: then the film is not covered, a button for the sound is enough.
    unmute.hidden = !muted;
    autoplay.hidden = Boolean(muted);
    if (!muted) byId('autoplay-button', HTMLButtonElement).focus({ preventScroll: true });
  }), { once: true });

  /** Inside the tap, or the browser refuses again. @param {boolean} muted */
  const begin = (muted) => {
    autoplay.hidden = true;
    unmute.hidden = true;
    sync.resume({ muted });
  };
  byId('autoplay-button', HTMLButtonElement).onclick = () => begin(false);
  byId('autoplay-muted', HTMLButtonElement).onclick = () => begin(true);
  unmute.onclick = () => begin(false);
  listen(video, 'playing', () => {
    autoplay.hidden = true;
  }, signal);
  listen(video, 'volumechange', () => {
    if (!video.muted) unmute.hidden = true;
  }, signal);

  let toldDenied = -Infinity;
  signal.addEventListener('abort', sync.on('denied', ({ code }) => {
    // The native element (media keys, picture in picture) was used without the right to, or in vain.
    if (code !== 'NOT_IN_CONTROL') return toast(sentence({ code }));
    if (performance.now() - toldDenied < 3000) return;
    toldDenied = performance.now();
    toast('Only the host can do that here, so your player went back to where the others are.');
  }), { once: true });

  return {
    update() {
      const none = !room.url && room.state === 'joined';
      // While it is tried again the element has no error, and the card stays.
      const { state, reason = '' } = sync.player;
      const broken = Boolean(room.url) && state === 'failed' && reason in MEDIA_SENTENCES;
      empty.hidden = !none;
      failed.hidden = !broken;
      stage.classList.toggle('bare', none || broken);
      if (none) {
        const host = room.members.find((m) => m.isHost);
        const can = room.self.canControl;
        setText(byId('stage-empty-text', HTMLElement), can
          ? 'Choose what everyone will watch. The test film has a running clock, so you can see how close you are.'
          : `${host ? isolate(host.username) : 'The host'} has not chosen a film yet.`);
        byId('empty-test-film', HTMLElement).hidden = !can;
        byId('empty-choose', HTMLElement).hidden = !can;
      }
      if (broken) setText(byId('stage-error-text', HTMLElement), MEDIA_SENTENCES[reason]);
      const stalled = Boolean(room.url) && !broken && (video.seeking || (room.playback.playing && video.readyState < 3));
      if (!stalled) stalledSince = 0;
      else stalledSince ||= performance.now();
      spinner.hidden = !stalled || performance.now() - stalledSince < STALL_MS || !autoplay.hidden;
    },
  };
}
