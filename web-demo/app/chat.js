/** The chat, and the quiet lines about who came and went. */
import { onChange } from './change.js';
import { byId, h, listen, setText } from './dom.js';
import { wallTime } from './format.js';
import { hueOf, initials } from './identity.js';
import { attempt, toast } from './toast.js';

/** Older lines go: an evening of chat must not make the page slow. */
const KEEP = 500;
const FOLLOW_MS = 120_000;

/** @param {import('./types.js').Ctx} ctx @param {ReturnType<typeof import('./tabs.js').setupTabs>} tabs @param {boolean} fresh */
export function setupChat({ room, signal }, tabs, fresh) {
  const list = byId('chat-list', HTMLElement);
  const form = byId('chat-form', HTMLFormElement);
  const input = byId('chat-input', HTMLTextAreaElement);
  const unread = byId('chat-unread', HTMLElement);
  let missed = 0;
  /** @type {{userId: string, timestamp: number} | null} */
  let previous = null;
  if (fresh) list.replaceChildren();

  /** @param {HTMLElement} item */
  const add = (item) => {
    // Somebody who reads further up is not pulled down.
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 60;
    list.append(item);
    while (list.childElementCount > KEEP) list.firstElementChild?.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  };
  /** @param {string} text */
  const system = (text) => {
    previous = null;
    add(h('li', { class: 'chat-system' }, text));
  };

  listen(room, 'chat', (event) => {
    const { userId, username, text, timestamp } = event.detail;
    const follow = previous?.userId === userId && timestamp - (previous?.timestamp ?? 0) < FOLLOW_MS;
    previous = { userId, timestamp };
    const body = h('p', { class: 'chat-text' }, text);
    add(follow
      ? h('li', { class: 'chat-item follow' }, body)
      : h('li', { class: 'chat-item' },
        h('span', { class: 'avatar', vars: { '--hue': hueOf(userId) }, attrs: { 'aria-hidden': 'true' } }, initials(username)),
        h('div', { class: 'chat-head' }, h('strong', {}, userId === room.self.userId ? 'You' : username), h('time', { attrs: { datetime: new Date(timestamp).toISOString() } }, wallTime(timestamp))),
        body));
    if (!tabs.isSelected('chat')) showMissed(missed + 1);
  }, signal);

  /** @param {number} count */
  const showMissed = (count) => {
    missed = count;
    unread.hidden = count === 0;
    setText(unread, count > 99 ? '99+' : String(count));
  };
  tabs.onSelect((name) => {
    if (name !== 'chat') return;
    showMissed(0);
    list.scrollTop = list.scrollHeight;
  });

  setupNews(room, signal, system, fresh);

  const send = async () => {
    const text = input.value.trim();
    if (!text) return;
    if (room.state !== 'joined') return toast('Not connected right now. Your message stays in the field.');
    input.value = '';
    // A refused message comes back, unless something new is already being written.
    if (!(await attempt(() => room.chat(text))) && input.value === '') input.value = text;
  };
  listen(form, 'submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    void send();
  }, signal);
  listen(input, 'keydown', (/** @type {KeyboardEvent} */ event) => {
    // Enter while an input method composes picks a candidate.
    if (event.key !== 'Enter' || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    void send();
  }, signal);

  return {
    focus() {
      tabs.select('chat');
      input.focus();
    },
  };
}

/**
 * Says who came, went, or hosts now, by comparing the list with the one before.
 * @param {import('./types.js').Room} room @param {AbortSignal} signal
 * @param {(text: string) => void} say @param {boolean} fresh
 */
function setupNews(room, signal, say, fresh) {
  /** @type {Map<string, string> | null} */
  let known = null;
  let host = room.hostUserId;
  const compare = () => {
    if (room.state !== 'joined') return;
    const now = new Map(room.members.map((m) => [m.userId, m.username]));
    if (known === null) {
      if (fresh) say(now.size === 1 ? 'You opened the room' : 'You joined');
    } else {
      for (const [userId, name] of now) {
        const before = known.get(userId);
        if (before === undefined) say(`${name} joined`);
        else if (before !== name) say(`${before} is now ${name}`);
      }
      for (const [userId, name] of known) if (!now.has(userId)) say(`${name} left`);
      if (room.hostUserId !== host && room.hostUserId !== null) say(room.self.isHost ? 'You host the room now' : `${now.get(room.hostUserId) ?? 'Somebody'} hosts the room now`);
    }
    known = now;
    host = room.hostUserId;
  };
  onChange(room, compare, signal);
  compare();
}
