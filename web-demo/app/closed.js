/** The dialog that says why the session ended for good. */
import { byId, openDialog } from './dom.js';
import { countDown } from './cooldown.js';
import { closeStory } from './errors.js';

/**
 * @param {{code: number | string, reason: string}} detail
 * @param {number} waitMs  how long the room refuses this visitor yet
 * @returns {Promise<boolean>} whether the visitor wants in again
 */
export async function askAfterClose(detail, waitMs) {
  const story = closeStory(detail);
  const dialog = byId('closed-dialog', HTMLDialogElement);
  const again = byId('closed-again', HTMLButtonElement);
  byId('closed-title', HTMLElement).textContent = story.title;
  byId('closed-text', HTMLElement).textContent = story.text;
  again.hidden = !story.again;
  const ready = () => {
    again.disabled = false;
    again.textContent = 'Join again';
  };
  const stop = countDown(again, waitMs, ready);
  let rejoin = false;
  again.onclick = () => {
    rejoin = true;
    dialog.close();
  };
  byId('closed-home', HTMLButtonElement).onclick = () => dialog.close();
  await openDialog(dialog);
  stop();
  ready();
  return rejoin;
}
