/**
 * The chat while the film fills the screen. New lines appear over the film for a few seconds; the chat itself, moved
 * into the stage, opens at its edge with a button or with C. Where only the video can go full screen (iPhone), there is
 * none.
 */
import { byId, h, listen, person } from './dom.js';
import { setIcon } from './icons.js';

const SHOWN_MS = 8000;
const MOST_SHOWN = 4;

/** @typedef {ReturnType<typeof setupFullscreenChat>} FullscreenChat */

/** @param {import('./types.js').Ctx} ctx @param {import('./chat.js').Chat} chat */
export function setupFullscreenChat({ room, signal }, chat) {
  const stage = byId('stage', HTMLElement);
  const panel = byId('panel-chat', HTMLElement);
  const said = byId('film-said', HTMLElement);
  const button = byId('film-chat', HTMLButtonElement);
  const log = byId('chat-log', HTMLElement);
  /** Marks the panel's place in the page while it is in the stage. */
  const place = document.createComment('chat');
  setIcon(button, 'chat');

  const isFull = () => document.fullscreenElement === stage;
  const isOpen = () => stage.classList.contains('with-chat');

  /** @param {boolean} on */
  const show = (on) => {
    stage.classList.toggle('with-chat', on);
    button.setAttribute('aria-expanded', String(on));
    button.setAttribute('aria-label', on ? 'Hide the chat' : 'Show the chat');
    if (on) said.replaceChildren();
    log.scrollTop = log.scrollHeight;
  };
  const home = () => {
    show(false);
    said.replaceChildren();
    if (place.isConnected) place.replaceWith(panel);
  };
  const follow = () => {
    button.hidden = !isFull();
    if (!isFull()) return home();
    if (place.isConnected) return;
    panel.replaceWith(place);
    stage.append(panel);
  };

  button.onclick = () => {
    show(!isOpen());
    if (isOpen()) byId('chat-input', HTMLElement).focus();
  };
  listen(document, 'fullscreenchange', follow, signal);
  listen(room, 'chat', (event) => {
    const { userId, username, text, replayed } = event.detail;
    if (!isFull() || isOpen() || replayed) return;
    const line = h('p', { class: 'film-line', attrs: { dir: 'auto' } }, h('strong', {}, userId === room.self.userId ? 'You' : person(username)), ' ', text);
    said.append(line);
    while (said.childElementCount > MOST_SHOWN) said.firstElementChild?.remove();
    setTimeout(() => line.remove(), SHOWN_MS);
  }, signal);
  signal.addEventListener('abort', () => {
    home();
    button.hidden = true;
  }, { once: true });
  follow();

  return {
    /** Where C leads. */
    focus() {
      if (!isFull()) return chat.focus();
      show(true);
      byId('chat-input', HTMLElement).focus();
    },
  };
}
