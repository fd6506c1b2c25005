/**
 * The audience: a viewer is told that it watches only, and may raise its hand; the host sees the hands and lets
 * somebody in. What the audience can't do (chat, call, its name) is not offered to it.
 */
import { onChange } from './change.js';
import { byId, h, listen, person, setText } from './dom.js';
import { attempt } from './toast.js';

/** Hands that are shown at a time: the bar must not push the film away. */
const SHOWN = 3;

/** @param {import('./types.js').Ctx} ctx */
export function setupAudience({ room, signal }) {
  const seat = byId('banner-audience', HTMLElement);
  const ask = byId('raise-hand', HTMLButtonElement);
  const seatText = byId('banner-audience-text', HTMLElement);
  const hands = byId('hands', HTMLElement);
  const count = byId('audience-count', HTMLElement);
  const membersOnly = [byId('chat-form', HTMLElement), byId('call-button', HTMLElement)];
  /** Rows are kept: a rebuilt one would lose the focus. @type {Map<string, HTMLElement>} */
  const rows = new Map();
  const more = h('p', { class: 'muted small' });
  signal.addEventListener('abort', () => {
    hands.replaceChildren();
    for (const element of [seat, hands, count]) element.hidden = true;
    for (const element of membersOnly) element.hidden = false;
  }, { once: true });
  listen(ask, 'click', () => void attempt(() => room.raiseHand(!room.handRaised)), signal);

  const update = () => {
    const watches = room.role === 'audience';
    seat.hidden = !watches;
    for (const element of membersOnly) element.hidden = watches;
    document.body.classList.toggle('watches', watches);
    setText(seatText, room.handRaised
      ? 'You have asked the host for a place.'
      : 'The film runs in step with the room. Ask the host for a place to chat and to join the call.');
    setText(ask, room.handRaised ? 'Lower hand' : 'Raise hand');
    ask.setAttribute('aria-pressed', String(room.handRaised));
    count.hidden = room.audience === 0;
    setText(count, audienceText(room.audience, watches));
    showHands();
  };

  const showHands = () => {
    const up = room.self.isHost ? room.hands : [];
    const shown = up.slice(0, SHOWN);
    for (const [userId, row] of rows) {
      if (shown.some((hand) => hand.userId === userId)) continue;
      row.remove();
      rows.delete(userId);
    }
    for (const { userId, username } of shown) {
      if (rows.has(userId)) continue;
      const row = handRow(userId, username);
      rows.set(userId, row);
      hands.append(row);
    }
    hands.append(more);
    more.hidden = up.length <= SHOWN;
    setText(more, `${up.length - SHOWN} more in the audience ask for a place.`);
    hands.hidden = up.length === 0;
  };

  /** @param {string} userId @param {string} username */
  const handRow = (userId, username) => {
    const letIn = h('button', { class: 'button primary compact', attrs: { type: 'button', 'aria-label': `Let ${username} in` } }, 'Let in');
    const notNow = h('button', { class: 'button compact', attrs: { type: 'button', 'aria-label': `Not now, ${username}` } }, 'Not now');
    letIn.addEventListener('click', () => void attempt(() => room.invite(userId)));
    notNow.addEventListener('click', () => void attempt(() => room.declineHand(userId)));
    return h('div', { class: 'hand' }, h('span', {}, person(username), ' asks for a place'), letIn, notNow);
  };

  onChange(room, update, signal);
  update();
}

/** @param {number} audience @param {boolean} watches */
function audienceText(audience, watches) {
  const others = watches ? audience - 1 : audience;
  const number = others.toLocaleString('en');
  if (!watches) return `${number} in the audience`;
  return others === 0 ? 'You are the audience' : `You and ${number} in the audience`;
}
