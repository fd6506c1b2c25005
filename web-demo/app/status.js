/** The pill in the header: in one word, how this player stands to the room. */
import { byId, every, listen, setText } from './dom.js';
import { driftTone, signedMs } from './format.js';

/** @typedef {{tone: string, text: string, spoken: string, figure?: string}} Standing */

/** @param {import('./types.js').Ctx} ctx */
export function setupStatus(ctx) {
  const pill = byId('status-pill', HTMLElement);
  const text = byId('status-text', HTMLElement);
  const figure = byId('status-figure', HTMLElement);
  const live = byId('status-live', HTMLElement);
  const update = () => {
    const standing = standingOf(ctx);
    pill.dataset.tone = standing.tone;
    setText(text, standing.text);
    setText(figure, standing.figure ?? '');
    // The figure changes all the time; only a change of the word is spoken.
    setText(live, standing.spoken);
  };
  every(300, update, ctx.signal);
  listen(ctx.room, 'state', update, ctx.signal);
}

/** @param {import('./types.js').Ctx} ctx @returns {Standing} */
export function standingOf({ room, sync }) {
  if (room.state === 'connecting') return { tone: 'idle', text: 'Connecting', spoken: 'Connecting' };
  if (room.state === 'reconnecting') return { tone: 'warn', text: 'Reconnecting', spoken: 'Reconnecting' };
  if (room.state === 'closed') return { tone: 'bad', text: 'Disconnected', spoken: 'Disconnected' };
  if (room.degraded) return { tone: 'warn', text: 'No commands', spoken: 'The server can’t take commands right now' };
  if (room.gate) return { tone: 'warn', text: 'Waiting', spoken: 'Waiting for others' };
  if (!room.url) return { tone: 'idle', text: 'No film', spoken: 'No film yet' };
  if (!room.playback.playing) return { tone: 'idle', text: 'Paused', spoken: 'Paused' };
  const drift = sync.drift;
  const tone = driftTone(drift);
  if (tone === 'good') return { tone, text: 'In step', spoken: 'In step', figure: signedMs(drift) };
  if (tone === 'idle') return { tone, text: 'Starting', spoken: 'Starting' };
  return { tone, text: 'Catching up', spoken: 'Catching up', figure: signedMs(drift) };
}
