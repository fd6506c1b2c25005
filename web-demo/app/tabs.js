/** People, Chat, Stats, Log. On a desktop the people stand above the tabs and theirs is hidden. */
import { byId, listen } from './dom.js';

const NAMES = /** @type {const} */ (['people', 'chat', 'stats', 'log']);
/** @typedef {typeof NAMES[number]} TabName */

/** @type {TabName} */
let selected = 'chat';

/** @param {import('./types.js').Ctx} ctx */
export function setupTabs({ signal }) {
  const wide = matchMedia('(min-width: 1001px)');
  const tab = (/** @type {TabName} */ name) => byId(`tab-${name}`, HTMLButtonElement);
  const panel = (/** @type {TabName} */ name) => byId(`panel-${name}`, HTMLElement);
  /** @type {Set<(name: TabName) => void>} */
  const watchers = new Set();
  const usable = () => NAMES.filter((name) => name !== 'people' || !wide.matches);

  /** @param {TabName} name */
  const select = (name) => {
    selected = usable().includes(name) ? name : 'chat';
    for (const each of NAMES) {
      const on = each === selected;
      tab(each).setAttribute('aria-selected', String(on));
      tab(each).tabIndex = on ? 0 : -1;
      panel(each).classList.toggle('selected', on);
    }
    // Above the tabs it is a region of its own, not a tab's panel.
    panel('people').setAttribute('role', wide.matches ? 'region' : 'tabpanel');
    for (const watcher of watchers) watcher(selected);
  };

  for (const name of NAMES) {
    tab(name).onclick = () => select(name);
    listen(tab(name), 'keydown', (/** @type {KeyboardEvent} */ event) => {
      const names = usable();
      const at = names.indexOf(name);
      const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: names.length - 1 }[event.key];
      if (to === undefined) return;
      event.preventDefault();
      const next = names[(to + names.length) % names.length];
      select(next);
      tab(next).focus();
    }, signal);
  }
  listen(wide, 'change', () => select(selected), signal);
  select(wide.matches && selected === 'people' ? 'chat' : selected);
  return {
    select,
    /** @param {TabName} name */
    isSelected: (name) => selected === name,
    /** @param {(name: TabName) => void} watcher */
    onSelect(watcher) {
      watchers.add(watcher);
      watcher(selected);
    },
  };
}
