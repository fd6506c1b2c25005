/** Small helpers around the DOM. Text always goes in as text: nothing on this page parses HTML. */

/**
 * The element with this id, of this kind. A missing one is a mistake in index.html and should fail at once.
 * @template {Element} T
 * @param {string} id
 * @param {new () => T} kind
 * @returns {T}
 */
export function byId(id, kind) {
  const element = document.getElementById(id);
  if (!(element instanceof kind)) throw new Error(`index.html: #${id} is missing or of another kind`);
  return element;
}

/**
 * @typedef {object} Props
 * @property {string} [class]
 * @property {Record<string, string>} [attrs]
 * @property {Record<string, string>} [vars]   CSS custom properties
 * @property {Record<string, (event: Event) => void>} [on]
 */

/**
 * @template {keyof HTMLElementTagNameMap} K
 * @param {K} tag @param {Props} [props]
 * @param {...(Node | string | null | false | undefined)} children
 * @returns {HTMLElementTagNameMap[K]}
 */
export function h(tag, props = {}, ...children) {
  const element = document.createElement(tag);
  if (props.class) element.className = props.class;
  for (const [name, value] of Object.entries(props.attrs ?? {})) element.setAttribute(name, value);
  // Through the CSSOM, which a strict Content-Security-Policy allows; a style attribute it would refuse.
  for (const [name, value] of Object.entries(props.vars ?? {})) element.style.setProperty(name, value);
  for (const [name, handler] of Object.entries(props.on ?? {})) element.addEventListener(name, handler);
  for (const child of children) if (child) element.append(child);
  return element;
}

/**
 * A name that a person chose, in an element of its own writing direction: a right-to-left name, or a direction mark in
 * it, leaves what stands around it alone.
 * @param {string} name
 */
export function person(name) {
  return h('bdi', {}, name);
}

/** A sentence whose isolated parts (format.js, isolate) become elements. @param {string} text @returns {Node[]} */
export function words(text) {
  // Split at a pattern with a group, the odd parts are the isolated ones.
  return text.split(/\u2068([^\u2069]*)\u2069/).map((part, at) => (at % 2 ? person(part) : new Text(part)));
}

/**
 * Writes text only when it changed: a live region must not speak again, a selection must not be lost.
 * @param {Element} element @param {string} text
 */
export function setText(element, text) {
  const plain = text.replace(/[\u2068\u2069]/g, '');
  if (element.textContent === plain) return;
  if (plain === text) element.textContent = text;
  else element.replaceChildren(...words(text));
}

/** @param {HTMLElement | SVGElement} element @param {string} name @param {string} value */
export function setVar(element, name, value) {
  if (element.style.getPropertyValue(name) !== value) element.style.setProperty(name, value);
}

/**
 * Listens until `signal` aborts.
 * @param {EventTarget} target @param {string} type
 * @param {(event: any) => void} handler @param {AbortSignal} [signal]
 */
export function listen(target, type, handler, signal) {
  target.addEventListener(type, handler, signal ? { signal } : undefined);
}

/**
 * Calls at once and then every `ms` until `signal` aborts.
 * @param {number} ms
 * @param {() => void} fn
 * @param {AbortSignal} signal
 */
export function every(ms, fn, signal) {
  fn();
  const timer = setInterval(fn, ms);
  signal.addEventListener('abort', () => clearInterval(timer), { once: true });
}

/**
 * Opens a dialog and resolves when it closes, whichever way.
 * @param {HTMLDialogElement} dialog
 * @returns {Promise<void>}
 */
export function openDialog(dialog) {
  if (!dialog.open) dialog.showModal();
  return new Promise((resolve) => dialog.addEventListener('close', () => resolve(), { once: true }));
}

/**
 * Asks before something that can't be undone.
 * @param {{title: string, text: string, yes: string}} question
 * @returns {Promise<boolean>}
 */
export function confirmDialog({ title, text, yes }) {
  const dialog = byId('confirm-dialog', HTMLDialogElement);
  const yesButton = byId('confirm-yes', HTMLButtonElement);
  setText(byId('confirm-title', HTMLElement), title);
  setText(byId('confirm-text', HTMLElement), text);
  yesButton.textContent = yes;
  let answer = false;
  yesButton.onclick = () => {
    answer = true;
    dialog.close();
  };
  byId('confirm-no', HTMLButtonElement).onclick = () => dialog.close();
  return openDialog(dialog).then(() => answer);
}
