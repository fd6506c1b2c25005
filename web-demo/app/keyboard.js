/** Keys for the whole page. A key that the focused element uses itself stays with it. */
import { byId, listen, openDialog } from './dom.js';

/**
 * @param {import('./types.js').Ctx} ctx
 * @param {{player: import('./player.js').Player, focusChat: () => void}} parts
 */
export function setupKeyboard({ signal }, { player, focusChat }) {
  const sheet = byId('shortcuts-dialog', HTMLDialogElement);
  const showSheet = () => void openDialog(sheet);
  byId('shortcuts-button', HTMLButtonElement).onclick = showSheet;

  listen(document, 'keydown', (/** @type {KeyboardEvent} */ event) => {
    const target = event.target instanceof HTMLElement ? event.target : document.body;
    if (event.key === 'Escape') return escape(target);
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (document.querySelector('dialog[open]') || takesText(target)) return;
    const run = actionFor(event, target);
    if (!run) return;
    event.preventDefault();
    run();
  }, signal);

  /** @param {KeyboardEvent} event @param {HTMLElement} target @returns {(() => void) | null} */
  function actionFor(event, target) {
    switch (event.key) {
      case ' ':
        // On a button, a space presses it.
        if (target.closest('button, summary, select, a, input:not(#scrub)')) return null;
        return event.repeat ? () => {} : () => void player.toggle();
      case 'k':
      case 'K':
        return event.repeat ? null : () => void player.toggle();
      case 'ArrowLeft':
      case 'ArrowRight':
        if (target.closest('[role=tab], select, input:not(#scrub)')) return null;
        return () => player.step(event.key === 'ArrowRight' ? 1 : -1);
      case 'm':
      case 'M':
        return () => player.toggleMute();
      case 'f':
      case 'F':
        return () => void player.toggleFullscreen();
      case 'c':
      case 'C':
        return focusChat;
      case '?':
        return showSheet;
      default:
        return null;
    }
  }
}

/**
 * Dialogs and full screen close by themselves; here a field is left, and the keys work again.
 * @param {HTMLElement} target
 */
function escape(target) {
  if (!document.querySelector('dialog[open]') && takesText(target)) target.blur();
}

/** @param {HTMLElement} target */
function takesText(target) {
  if (target instanceof HTMLTextAreaElement || target.isContentEditable) return true;
  return target instanceof HTMLInputElement && !['range', 'radio', 'checkbox', 'button', 'submit'].includes(target.type);
}
