/** The list of members: host, transport, round trip, drift, buffering, away; and the host's actions on them. */
import { onChange } from './change.js';
import { byId, confirmDialog, every, h, setText } from './dom.js';
import { awaySeconds, digestText, driftTone, isolate, msText, signedMs } from './format.js';
import { icon } from './icons.js';
import { hueOf, initials } from './identity.js';
import { attempt } from './toast.js';
import { playerText } from './trouble.js';

/** @typedef {import('./types.js').Member} Member */
/** @typedef {import('./types.js').Ctx} Ctx */
/** @typedef {ReturnType<typeof makeRow>} Row */

/** @param {Ctx} ctx */
export function setupPeople(ctx) {
  const { room, signal } = ctx;
  const list = byId('members', HTMLElement);
  /**
   * Rows are kept and updated: rebuilding would take the focus away from somebody who is at a menu.
   * @type {Map<string, Row>}
   */
  const rows = new Map();
  signal.addEventListener('abort', () => list.replaceChildren(), { once: true });

  const update = () => {
    const { digest } = room;
    const members = sorted(room.members, room.self.userId, digest?.standOuts ?? []);
    for (const [userId, row] of rows) {
      if (members.some((m) => m.userId === userId)) continue;
      row.element.remove();
      rows.delete(userId);
    }
    members.forEach((member, index) => {
      let row = rows.get(member.userId);
      if (!row) {
        row = makeRow(ctx, member.userId);
        rows.set(member.userId, row);
      }
      row.update(member);
      if (list.children[index] !== row.element) list.insertBefore(row.element, list.children[index] ?? null);
    });
    setText(byId('people-count', HTMLElement), String(members.length));
    byId('members-alone', HTMLElement).hidden = members.length !== 1 || digest !== null || room.role === 'audience';
    const line = byId('people-digest', HTMLElement);
    line.hidden = digest === null;
    setText(line, digest ? digestText(digest) : '');
    line.title = digest && digest.p50Ms !== null ? `Half of the players are within ${msText(digest.p50Ms)} of the room, 95 % within ${msText(digest.p95Ms)}` : '';
  };
  onChange(room, update, signal);
  every(1000, update, signal);
}

/**
 * Oneself first, then the host, then in a large room those who stand out, then by arrival.
 * @param {Member[]} members @param {string} selfId @param {string[]} standOuts
 */
function sorted(members, selfId, standOuts) {
  const rank = new Map(standOuts.map((userId, index) => [userId, 2 + index]));
  const weight = (/** @type {Member} */ m) => (m.userId === selfId ? 0 : m.isHost ? 1 : rank.get(m.userId) ?? Infinity);
  // Of two without a rank the difference is NaN, which decides nothing, as 0.
  return [...members].sort((a, b) => weight(a) - weight(b) || a.slot - b.slot);
}

/** @param {Member} member @returns {'v2' | 'WT' | 'WS' | ''} */
export function transportKind(member) {
  if (member.protocol === 2) return 'v2';
  return member.transport === 'webtransport' ? 'WT' : member.transport === 'websocket' ? 'WS' : '';
}
const KIND_TITLE = { v2: 'An older client, protocol 2 over WebSocket', WT: 'WebTransport', WS: 'WebSocket', '': '' };

/** @param {Ctx} ctx @param {string} userId */
function makeRow(ctx, userId) {
  const { room, sync } = ctx;
  const avatar = h('span', { class: 'avatar', vars: { '--hue': hueOf(userId) } });
  const name = h('bdi');
  const suffix = h('small');
  const crown = h('span', { attrs: { title: 'Host' } }, icon('crown'), h('span', { class: 'sr-only' }, 'Host'));
  const badge = h('abbr', { class: 'badge' });
  const state = h('span');
  const drift = h('span', { class: 'mono', attrs: { title: 'How far this player is ahead of the room (+) or behind it (−)' } });
  const rtt = h('span', { class: 'mono', attrs: { title: 'How long a message takes to the server and back' } });
  const more = h('button', { class: 'icon-button', attrs: { type: 'button', 'aria-expanded': 'false' } }, icon('dots'));
  const actions = h('div', { class: 'member-actions', attrs: { hidden: '' } });
  const element = h('li', { class: 'member' },
    h('div', { class: 'member-main' },
      h('span', { class: 'member-avatar' }, avatar),
      h('div', {},
        h('div', { class: 'member-name' }, name, crown, suffix),
        h('div', { class: 'member-facts' }, badge, state, drift, rtt)),
      more),
    actions);
  let username = '';

  const close = () => {
    actions.hidden = true;
    more.setAttribute('aria-expanded', 'false');
  };
  more.addEventListener('click', () => {
    const open = actions.hidden;
    if (!open) return close();
    actions.replaceChildren(...(userId === room.self.userId ? selfActions(ctx, close) : hostActions(ctx, userId, username, close)));
    actions.hidden = false;
    more.setAttribute('aria-expanded', 'true');
    /** @type {HTMLElement | null} */ (actions.querySelector('input, button'))?.focus();
  });
  actions.addEventListener('keydown', (event) => {
    if (event.key !== 'Escape') return;
    event.stopPropagation();
    close();
    more.focus();
  });

  return {
    element,
    /** @param {Member} member */
    update(member) {
      const own = member.userId === room.self.userId;
      username = member.username;
      setText(avatar, initials(username));
      setText(name, username);
      name.title = username;
      setText(suffix, own ? 'you' : '');
      crown.hidden = !member.isHost;
      const kind = transportKind(member);
      badge.hidden = kind === '' || !member.connected;
      badge.dataset.kind = kind;
      badge.title = KIND_TITLE[kind];
      setText(badge, kind);
      element.classList.toggle('away', !member.connected);
      element.classList.toggle('buffering', member.connected && member.buffering);
      element.classList.toggle('failed', member.connected && member.player === 'failed');
      setText(state, !member.connected ? awayText(member, room.clock.roomTime()) : playerText(member) || (member.buffering ? 'Buffering' : member.inCall && !own ? 'In the call' : ''));
      state.hidden = state.textContent === '';
      const value = own ? sync.drift : member.driftMs;
      const known = member.connected && value !== null && Number.isFinite(value) && room.playback.playing;
      drift.hidden = !known;
      drift.dataset.tone = driftTone(value);
      setText(drift, known ? signedMs(value) : '');
      const trip = own ? room.clock.rtt : member.rttMs;
      rtt.hidden = !member.connected || trip === null || !Number.isFinite(trip);
      setText(rtt, rtt.hidden ? '' : `rtt ${msText(trip)}`);
      more.hidden = !own && !room.self.isHost;
      more.setAttribute('aria-label', own ? 'Change your name' : `Actions for ${username}`);
      if (more.hidden) close();
    },
  };
}

/** @param {Member} member @param {number} roomTime */
function awayText(member, roomTime) {
  const left = awaySeconds(member, roomTime);
  return left === null ? 'Away' : `Away, place kept for ${left} s`;
}

/** @param {Ctx} ctx @param {() => void} close */
function selfActions({ room, wish }, close) {
  const input = h('input', { attrs: { maxlength: '40', 'aria-label': 'Your name', name: 'name', autocomplete: 'nickname' } });
  input.value = room.self.username;
  const form = h('form', {}, input, h('button', { class: 'button compact', attrs: { type: 'submit' } }, 'Save'));
  form.addEventListener('submit', async (event) => {
    event.preventDefault();
    const name = input.value.trim();
    if (!name) return;
    if (name !== room.self.username && !(await attempt(() => room.rename(name)))) return;
    wish.name = name;
    close();
  });
  return [form];
}

/** @param {Ctx} ctx @param {string} userId @param {string} username @param {() => void} close */
function hostActions({ room }, userId, username, close) {
  /**
   * @param {string} label
   * @param {string} kind
   * @param {() => Promise<unknown>} run  false: the host cancelled it
   */
  const action = (label, kind, run) => {
    const button = h('button', { class: `button compact ${kind}`, attrs: { type: 'button' } }, label);
    button.addEventListener('click', async () => {
      let done = true;
      const accepted = await attempt(async () => (done = (await run()) !== false));
      if (accepted && done) close();
    });
    return button;
  };
  return [
    action('Make host', '', () => room.transferHost(userId)),
    action('Remove', '', async () => {
      const sure = await confirmDialog({
        title: `Remove ${isolate(username)}?`,
        text: 'They leave at once. For about a minute they can’t come back from the same place with the same name or browser; after that they can. To keep somebody out for longer, ban them.',
        yes: 'Remove',
      });
      return sure && room.kick(userId);
    }),
    action('Ban', 'danger', async () => {
      const sure = await confirmDialog({
        title: `Ban ${isolate(username)}?`,
        text: 'They leave at once, and can’t come back with the browser they use now until you lift the ban in the room settings. Another browser or a private window gets past a ban: against that, set a PIN.',
        yes: 'Ban',
      });
      return sure && room.ban(userId);
    }),
  ];
}
