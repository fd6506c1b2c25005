/** The chat: what people say, and the quiet lines about what happened in the room (news.js). */
import { byId, h, listen, person, setText } from './dom.js';
import { wallTime } from './format.js';
import { hueOf, initials } from './identity.js';
import { attempt, toast } from './toast.js';

/** Lines that are kept: an evening of chat must not make the page slow. */
const KEEP = 500;
const FOLLOW_MS = 120_000;

/** @typedef {{userId: string, username: string, text: string, timestamp: number, replayed?: boolean}} Line */
/** @typedef {ReturnType<typeof setupChat>} Chat */

/**
 * @param {import('./types.js').Ctx} ctx @param {ReturnType<typeof import('./tabs.js').setupTabs>} tabs
 * @param {boolean} fresh
 * @param {import('./session.js').Heard[]} early lines that came before this view
 */
export function setupChat({ room, signal }, tabs, fresh, early) {
  const log = byId('chat-log', HTMLElement);
  const list = byId('chat-list', HTMLElement);
  const form = byId('chat-form', HTMLFormElement);
  const input = byId('chat-input', HTMLTextAreaElement);
  const unread = byId('chat-unread', HTMLElement);
  let missed = 0;
  /**
   * The last line among the new ones, and among those from before this visit.
   * @type {Record<'new' | 'old', Line | null>}
   */
  const previous = { new: null, old: null };
  /** First line of this visit; lines from before it go above. @type {Element | null} */
  let visit = null;
  if (fresh) list.replaceChildren();

  /** @param {HTMLElement} item @param {Element | null} [before] */
  const add = (item, before = null) => {
    // Somebody who reads further up is not pulled down.
    const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 60;
    list.insertBefore(item, before);
    while (list.childElementCount > KEEP) list.firstElementChild?.remove();
    if (atEnd) log.scrollTop = log.scrollHeight;
  };
  /** @param {...(string | Node)} words */
  const system = (...words) => {
    previous.new = null;
    const item = h('li', { class: 'chat-system', attrs: { dir: 'auto' } }, ...words);
    visit ??= item;
    add(item);
  };

  /** @param {Line} line */
  const say = (line) => {
    const { userId, username, text, timestamp, replayed } = line;
    // Replayed lines were missed after a lost connection; to a newcomer they are history.
    const history = replayed === true && fresh;
    const when = history ? 'old' : 'new';
    const last = previous[when];
    const follow = last?.userId === userId && timestamp - last.timestamp < FOLLOW_MS;
    previous[when] = line;
    const body = h('p', { class: 'chat-text', attrs: { dir: 'auto' } }, text);
    const time = h('time', { attrs: { datetime: new Date(timestamp).toISOString() } }, wallTime(timestamp));
    add(follow
      ? h('li', { class: 'chat-item follow' }, body)
      : h('li', { class: 'chat-item' },
        h('span', { class: 'avatar', vars: { '--hue': hueOf(userId) }, attrs: { 'aria-hidden': 'true' } }, initials(username)),
        h('div', { class: 'chat-head' }, h('strong', {}, userId === room.self.userId ? 'You' : person(username)), time),
        body), history ? visit : null);
    if (!history && !tabs.isSelected('chat')) showMissed(missed + 1);
  };
  for (const { type, detail } of early) if (type === 'chat') say(detail);
  listen(room, 'chat', (event) => say(event.detail), signal);

  /** @param {number} count */
  const showMissed = (count) => {
    missed = count;
    unread.hidden = count === 0;
    setText(unread, count > 99 ? '99+' : String(count));
  };
  tabs.onSelect((name) => {
    if (name !== 'chat') return;
    showMissed(0);
    log.scrollTop = log.scrollHeight;
  });

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
    system,
    focus() {
      tabs.select('chat');
      input.focus();
    },
  };
}
