/** The PIN prompt, with the wait that the server imposes after too many tries. */
import { byId, openDialog } from './dom.js';
import { codeOf, sentence } from './errors.js';

/**
 * @param {unknown} error       why a PIN is asked for
 * @param {boolean} triedOne    whether one was given already
 * @returns {Promise<string | null>} null: the visitor gave up
 */
export async function askPin(error, triedOne) {
  const dialog = byId('pin-dialog', HTMLDialogElement);
  const form = byId('pin-form', HTMLFormElement);
  const input = byId('pin-input', HTMLInputElement);
  const submit = byId('pin-submit', HTMLButtonElement);
  const complaint = byId('pin-error', HTMLElement);
  const code = codeOf(error);
  const stop = new AbortController();
  /** @type {string | null} */
  let answer = null;

  const complain = (/** @type {string} */ text) => {
    complaint.textContent = text;
    complaint.hidden = text === '';
    input.toggleAttribute('aria-invalid', false);
    if (text) input.setAttribute('aria-invalid', 'true');
  };
  input.value = '';
  submit.disabled = false;
  complain(code === 'PIN_REQUIRED' && !triedOne ? '' : sentence({ code }));

  const retryAfterMs = Number(/** @type {{retryAfterMs?: unknown}} */ (error)?.retryAfterMs ?? 0);
  if (code === 'PIN_THROTTLED' && retryAfterMs > 0) {
    const until = performance.now() + retryAfterMs;
    const tick = () => {
      const left = Math.ceil((until - performance.now()) / 1000);
      submit.disabled = left > 0;
      submit.textContent = left > 0 ? `Wait ${left} s` : 'Enter';
      if (left <= 0) clearInterval(timer);
    };
    const timer = setInterval(tick, 250);
    stop.signal.addEventListener('abort', () => {
      clearInterval(timer);
      submit.textContent = 'Enter';
    });
    tick();
  }

  byId('pin-cancel', HTMLButtonElement).onclick = () => dialog.close();
  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (submit.disabled) return;
    if (input.value.length < 4) return complain('A PIN has at least 4 characters.');
    answer = input.value;
    dialog.close();
  }, { signal: stop.signal });

  const closed = openDialog(dialog);
  input.focus();
  await closed;
  stop.abort();
  input.value = '';
  return answer;
}
