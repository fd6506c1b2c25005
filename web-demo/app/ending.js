/** The film is over: the room stands at its end, and somebody may want to see it again. */
import { onChange } from './change.js';
import { byId, every, setText } from './dom.js';
import { isolate } from './format.js';
import { attempt } from './toast.js';

/** A player may stop a little before the length that it told. */
const AT_THE_END_S = 0.35;

/** @param {import('./types.js').Ctx} ctx */
export function setupEnding({ room, video, signal }) {
  const card = byId('stage-end', HTMLElement);
  const again = byId('end-again', HTMLButtonElement);
  const other = byId('end-choose', HTMLButtonElement);
  again.onclick = () => void attempt(() => room.play(0));
  other.onclick = () => byId('source-button', HTMLButtonElement).click();

  const update = () => {
    const over = isOver(room, video);
    card.hidden = !over;
    if (!over) return;
    const can = room.self.canControl;
    const host = room.members.find((m) => m.isHost);
    again.hidden = other.hidden = !can;
    setText(byId('end-text', HTMLElement), can ? '' : `${host ? isolate(host.username) : 'The host'} can play it again.`);
  };
  onChange(room, update, signal);
  every(400, update, signal);
  signal.addEventListener('abort', () => (card.hidden = true), { once: true });
}

/** @param {import('./types.js').Room} room @param {HTMLVideoElement} video */
function isOver(room, video) {
  if (!room.url || room.state !== 'joined' || video.error) return false;
  const length = room.duration ?? (Number.isFinite(video.duration) ? video.duration : 0);
  return length > 0 && !room.playback.playing && room.gate === null && room.positionNow() >= length - AT_THE_END_S;
}
