/** Sets up the static page once: icons, theme, and dialogs that close. */
import { fillIcons } from './icons.js';
import { setupTheme } from './theme.js';

export { byId } from './dom.js';

export function fillPage() {
  fillIcons(document);
  setupTheme();
  for (const dialog of document.querySelectorAll('dialog')) {
    for (const button of dialog.querySelectorAll('[data-close]')) button.addEventListener('click', () => dialog.close());
    // A click on the backdrop lands on the dialog element itself.
    dialog.addEventListener('click', (event) => {
      if (event.target !== dialog || dialog.id === 'closed-dialog') return;
      const box = dialog.getBoundingClientRect();
      const within = event.clientX >= box.left && event.clientX <= box.right && event.clientY >= box.top && event.clientY <= box.bottom;
      if (!within) dialog.close();
    });
  }
}
