/** Light, dark, or as the system says. The choice is kept; theme-early.js applies it before the first paint. */
import { setIcon } from './icons.js';
import { longStorage } from './identity.js';

const KEY = 'tandem.theme';
const ORDER = /** @type {const} */ (['system', 'light', 'dark']);
const ICON = { system: 'system', light: 'sun', dark: 'moon' };

function current() {
  const stored = longStorage.getItem(KEY);
  return stored === 'light' || stored === 'dark' ? stored : 'system';
}

export function setupTheme() {
  const buttons = [...document.querySelectorAll('[data-theme-toggle]')].filter((b) => b instanceof HTMLButtonElement);
  const show = () => {
    const theme = current();
    if (theme === 'system') delete document.documentElement.dataset.theme;
    else document.documentElement.dataset.theme = theme;
    for (const button of buttons) {
      setIcon(button, ICON[theme]);
      button.setAttribute('aria-label', `Theme: ${theme}`);
      button.title = `Theme: ${theme}`;
    }
    // Canvases hold pixels, not styles: they are redrawn.
    document.dispatchEvent(new Event('tandem-theme'));
  };
  for (const button of buttons) {
    button.addEventListener('click', () => {
      longStorage.setItem(KEY, ORDER[(ORDER.indexOf(current()) + 1) % ORDER.length]);
      show();
    });
  }
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', show);
  show();
}
