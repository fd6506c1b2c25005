/** Short messages at the edge of the screen, and the one way to run a command of the room. */
import { byId, h, words } from './dom.js';
import { sentence } from './errors.js';
import { icon } from './icons.js';

/** @type {Map<string, {element: HTMLElement, timer: ReturnType<typeof setTimeout>}>} */
const shown = new Map();

/**
 * The same text twice stays one toast: a key held down must not pile them up.
 * @param {string} text
 * @param {'warn' | 'info'} [kind] info: what others did, nothing is wrong
 */
export function toast(text, kind = 'warn') {
  const host = byId('toasts', HTMLElement);
  // A modal dialog or a full-screen film covers everything outside it: the toasts move in there.
  const cover = document.querySelector('dialog[open]') ?? document.fullscreenElement ?? document.body;
  if (host.parentElement !== cover) cover.append(host);
  const again = shown.get(text);
  if (again) {
    clearTimeout(again.timer);
    again.timer = setTimeout(() => dismiss(text), 6000);
    return;
  }
  const close = h('button', { class: 'icon-button', attrs: { type: 'button', 'aria-label': 'Dismiss' } }, icon('x'));
  const element = h('div', { class: `toast ${kind}` }, icon(kind), h('span', {}, ...words(text)), close);
  close.addEventListener('click', () => dismiss(text));
  host.append(element);
  shown.set(text, { element, timer: setTimeout(() => dismiss(text), 6000) });
  if (shown.size > 3) dismiss([...shown.keys()][0]);
}

/** Removes all toasts: they are about the room that the visitor leaves. */
export function clearToasts() {
  for (const text of [...shown.keys()]) dismiss(text);
}

/** @param {string} text */
function dismiss(text) {
  const entry = shown.get(text);
  if (!entry) return;
  clearTimeout(entry.timer);
  entry.element.remove();
  shown.delete(text);
}

/**
 * Runs a room command; a refusal becomes a toast. Resolves to whether it was accepted.
 * @param {() => Promise<unknown> | unknown} command
 * @returns {Promise<boolean>}
 */
export async function attempt(command) {
  try {
    await command();
    return true;
  } catch (error) {
    toast(sentence(error));
    return false;
  }
}
