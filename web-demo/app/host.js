/** Room settings: only the host sees them. */
import { onChange } from './change.js';
import { byId, h, listen, setText } from './dom.js';
import { attempt } from './toast.js';

/** @param {import('./types.js').Ctx} ctx */
export function setupHostSettings(ctx) {
  const { room, signal } = ctx;
  const details = byId('host-room', HTMLDetailsElement);
  const box = byId('host-settings', HTMLElement);
  const guests = h('button', { class: 'switch', attrs: { type: 'button', role: 'switch', 'aria-checked': 'false' } }, h('span', {}, 'Guests can play, pause and seek'), h('i'));
  guests.addEventListener('click', () => void attempt(() => room.setGuestControl(!room.guestControl)));

  const pinInput = h('input', { attrs: { type: 'password', maxlength: '32', autocomplete: 'off', id: 'settings-pin' } });
  const pinLabel = h('label', { attrs: { for: 'settings-pin' } });
  const pinSave = h('button', { class: 'button compact', attrs: { type: 'submit' } }, 'Set');
  const pinRemove = h('button', { class: 'button compact', attrs: { type: 'button' } }, 'Remove');
  const pinForm = h('form', { class: 'settings-pin' }, h('div', { class: 'field' }, pinLabel, pinInput), pinSave, pinRemove);
  pinForm.addEventListener('submit', async (event) => {
    event.preventDefault();
    const pin = pinInput.value;
    if (pin.length < 4) {
      pinInput.setAttribute('aria-invalid', 'true');
      pinInput.focus();
      return;
    }
    if (!(await attempt(() => room.setPin(pin)))) return;
    pinInput.value = '';
    ctx.pinChanged(pin);
  });
  pinInput.addEventListener('input', () => pinInput.removeAttribute('aria-invalid'));
  pinRemove.addEventListener('click', async () => {
    if (await attempt(() => room.setPin(null))) ctx.pinChanged('');
  });
  const bans = h('div');
  box.replaceChildren(guests, pinForm, bans);

  const update = () => {
    for (const member of room.members) names.set(member.userId, member.username);
    details.hidden = !room.self.isHost;
    guests.setAttribute('aria-checked', String(room.guestControl));
    setText(pinLabel, room.hasPin ? 'New PIN' : 'PIN for newcomers');
    pinInput.placeholder = room.hasPin ? 'The room has one' : '4 to 32 characters';
    setText(pinSave, room.hasPin ? 'Change' : 'Set');
    pinRemove.hidden = !room.hasPin;
    showBans();
  };
  /** Names of who was here while this page watched: a ban knows only an id. @type {Map<string, string>} */
  const names = new Map();
  let shownBans = '';
  const showBans = () => {
    const key = room.banned.join('\n');
    if (key === shownBans) return;
    shownBans = key;
    bans.replaceChildren(...room.banned.map((userId) => {
      const name = names.get(userId);
      const lift = h('button', { class: 'button compact', attrs: { type: 'button', 'aria-label': `Lift the ban on ${name ?? userId}` } }, 'Lift ban');
      lift.addEventListener('click', () => void attempt(() => room.unban(userId)));
      return h('div', { class: 'banned' }, name ? h('bdi', {}, name) : h('span', { class: 'mono' }, userId), lift);
    }));
  };
  // Opened at the bottom of the list, it would open out of sight.
  listen(details, 'toggle', () => details.open && details.scrollIntoView({ block: 'nearest' }), signal);
  onChange(room, update, signal);
  update();
}
