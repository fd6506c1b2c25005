/** The first screen: a name, a room, a PIN if one is wanted. */
import { byId } from './dom.js';
import { isTransport } from './fragment.js';
import { isRoomId, suggestRoomId } from './identity.js';

/** @typedef {import('./types.js').Wish} Wish */

/** After this long without an answer the visitor can give up. */
const PATIENCE_MS = 4000;

/** @param {(wish: Wish) => void} onJoin @param {() => void} onCancel */
export function setupLanding(onJoin, onCancel) {
  const form = byId('join-form', HTMLFormElement);
  const name = byId('join-name', HTMLInputElement);
  const room = byId('join-room', HTMLInputElement);
  const pin = byId('join-pin', HTMLInputElement);
  const submit = byId('join-submit', HTMLButtonElement);
  /** The room that an invitation named; the wording follows it. */
  let invited = '';
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let patience;
  let waiting = false;

  const wording = () => {
    const joining = invited !== '' && room.value.trim() === invited;
    byId('join-title', HTMLElement).textContent = joining ? `Join ${invited}` : 'Open a room';
    byId('join-hint', HTMLElement).textContent = joining
      ? 'You were invited. Say who you are and you are in.'
      : 'If nobody is in it yet, the room is made and you host it.';
  };

  byId('join-shuffle', HTMLButtonElement).addEventListener('click', () => {
    room.value = suggestRoomId();
    room.removeAttribute('aria-invalid');
    wording();
  });
  room.addEventListener('input', wording);
  for (const input of [name, room, pin]) input.addEventListener('input', () => input.removeAttribute('aria-invalid'));

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (waiting) return onCancel();
    const wish = { roomId: room.value.trim(), name: name.value.trim(), pin: pin.value, transport: chosenTransport(form) };
    /** @type {[HTMLInputElement, boolean, string][]} */
    const checks = [
      [name, wish.name !== '', 'Tell the others who you are.'],
      [room, isRoomId(wish.roomId), 'A room name has letters, digits and . _ : @ - and no spaces.'],
      [pin, wish.pin === '' || wish.pin.length >= 4, 'A PIN has at least 4 characters.'],
    ];
    const failed = checks.find(([, good]) => !good);
    for (const [input, good] of checks) {
      if (good) input.removeAttribute('aria-invalid');
      else input.setAttribute('aria-invalid', 'true');
    }
    if (failed) {
      showLandingError(failed[2]);
      failed[0].focus();
      return;
    }
    onJoin(wish);
  });

  return {
    /** @param {Partial<Wish>} wish */
    fill(wish) {
      if (wish.roomId !== undefined) {
        invited = wish.roomId;
        room.value = wish.roomId || suggestRoomId();
      }
      if (wish.name !== undefined) name.value = wish.name;
      if (wish.pin !== undefined) pin.value = wish.pin;
      if (wish.transport !== undefined) {
        for (const radio of form.querySelectorAll('input[name=transport]')) {
          if (radio instanceof HTMLInputElement) radio.checked = radio.value === wish.transport;
        }
      }
      wording();
    },
    /** @param {boolean} on */
    busy(on) {
      clearTimeout(patience);
      waiting = on;
      submit.disabled = on;
      submit.textContent = on ? 'Connecting…' : 'Enter the room';
      if (!on) return;
      patience = setTimeout(() => {
        submit.disabled = false;
        submit.textContent = 'Stop trying';
        showLandingError('The server has not answered yet. Still trying…');
      }, PATIENCE_MS);
    },
    focus() {
      // On a phone the keyboard would jump up over the page.
      if (matchMedia('(hover: hover)').matches) (name.value ? submit : name).focus();
    },
  };
}

/** @param {HTMLFormElement} form */
function chosenTransport(form) {
  const value = new FormData(form).get('transport');
  return isTransport(value) ? value : 'auto';
}

/** @param {string} text  empty: none @param {string} [code] */
export function showLandingError(text, code = '') {
  const error = byId('join-error', HTMLElement);
  error.textContent = text;
  error.hidden = text === '';
  if (code) error.dataset.code = code;
  else delete error.dataset.code;
}
