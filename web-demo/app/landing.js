/**
 * The first screen: for a guest with a link a name; for anybody else a room, a PIN if one is wanted, and the transport
 * too.
 */
import { byId, h } from './dom.js';
import { countDown } from './cooldown.js';
import { isTransport } from './fragment.js';
import { isRoomId, suggestRoomId, tidyRoomId } from './identity.js';

/** @typedef {import('./types.js').Wish} Wish */

const ENTER = 'Enter the room';
const JOIN = 'Join';
const DAMAGED = 'This invitation is damaged: the name of its room can’t be read. Ask for the link again.';
/** After this long without an answer the visitor can give up. */
const PATIENCE_MS = 4000;

/** @param {(wish: Wish) => void} onJoin @param {() => void} onCancel */
export function setupLanding(onJoin, onCancel) {
  const form = byId('join-form', HTMLFormElement);
  const name = byId('join-name', HTMLInputElement);
  const room = byId('join-room', HTMLInputElement);
  const pin = byId('join-pin', HTMLInputElement);
  const submit = byId('join-submit', HTMLButtonElement);
  const more = byId('join-more', HTMLElement);
  const reveal = byId('join-reveal', HTMLButtonElement);
  /** The room that an invitation named; the wording follows it. */
  let invited = '';
  /** The owner that the invitation named; it holds for that room only. */
  let owner = '';
  /** The invitation's room had nobody in it. */
  let over = false;
  /** The visitor has just come out of that room. */
  let left = false;
  /** The invitation's room can't be read. */
  let damaged = false;
  /** A guest asked for the whole form. */
  let revealed = false;
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let patience;
  let waiting = false;
  /** Stops the countdown that runs, if one does. @type {(() => void) | undefined} */
  let holding;
  let heldRoom = '';
  const release = () => {
    holding?.();
    holding = undefined;
    submit.disabled = false;
    showLandingError('');
  };

  const wording = () => {
    const joining = invited !== '' && tidyRoomId(room.value) === invited;
    // The link names the room, and the room asks for its PIN itself.
    const guest = joining && !left && !revealed;
    more.hidden = guest;
    reveal.hidden = !guest;
    byId('landing', HTMLElement).classList.toggle('invited', guest || damaged);
    const title = byId('join-title', HTMLElement);
    if (joining && over) title.textContent = 'This room is over';
    else title.replaceChildren(...(joining ? ['Join ', h('bdi', {}, invited)] : ['Open a room']));
    byId('join-hint', HTMLElement).textContent = !joining
      ? 'If nobody is in the room yet, you open it and host it.'
      : over
        ? 'Everybody has left. You can open it again; links to it lead there as before.'
        : left
          ? 'You have left it. Enter again, or choose another room.'
          : 'You were invited. Say who you are, and you are in.';
    if (!waiting) submit.textContent = joining && over ? 'Open it again' : guest ? JOIN : ENTER;
  };
  const showAll = () => {
    revealed = true;
    wording();
  };
  reveal.addEventListener('click', () => {
    showAll();
    room.focus();
  });

  byId('join-shuffle', HTMLButtonElement).addEventListener('click', () => {
    room.value = suggestRoomId();
    room.removeAttribute('aria-invalid');
    wording();
  });
  room.addEventListener('input', () => {
    // The countdown is for one room; another one may be entered.
    if (holding !== undefined && tidyRoomId(room.value) !== heldRoom) release();
    showAll();
  });
  for (const input of [name, room, pin]) input.addEventListener('input', () => input.removeAttribute('aria-invalid'));

  form.addEventListener('submit', (event) => {
    event.preventDefault();
    if (waiting) {
      // Another transport may help a visitor who gave up.
      revealed = true;
      return onCancel();
    }
    const roomId = tidyRoomId(room.value);
    const wish = { roomId, name: name.value.trim(), pin: pin.value, owner: roomId === invited ? owner : '', transport: chosenTransport(form) };
    /** @type {[HTMLInputElement, boolean, string][]} */
    const checks = [
      [name, wish.name !== '', 'Tell the others who you are.'],
      [room, isRoomId(wish.roomId), 'A room name has 1 to 64 characters, with something in it that can be seen, and none of / \\ # ? % < > { } " ` | ^ &'],
      [pin, wish.pin === '' || wish.pin.length >= 4, 'A PIN has at least 4 characters.'],
    ];
    const failed = checks.find(([, good]) => !good);
    for (const [input, good] of checks) {
      if (good) input.removeAttribute('aria-invalid');
      else input.setAttribute('aria-invalid', 'true');
    }
    if (failed) {
      showLandingError(failed[2]);
      if (failed[0] !== name) showAll();
      failed[0].focus();
      return;
    }
    onJoin(wish);
  });

  return {
    /** @param {Partial<Wish & {over: boolean, left: boolean, damaged: boolean}>} wish */
    fill(wish) {
      if (wish.roomId !== undefined) {
        release();
        revealed = false;
        invited = wish.roomId;
        owner = wish.owner ?? '';
        over = wish.over === true;
        left = wish.left === true;
        // With a suggestion, a guest with a damaged link would sit alone in a room that nobody meant.
        room.value = wish.roomId || (wish.damaged ? '' : suggestRoomId());
        damaged = wish.damaged === true;
        if (damaged) showLandingError(DAMAGED, 'DAMAGED');
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
      holding?.();
      holding = undefined;
      waiting = on;
      submit.disabled = on;
      submit.textContent = 'Connecting…';
      if (!on) return wording();
      patience = setTimeout(() => {
        submit.disabled = false;
        submit.textContent = 'Stop trying';
        showLandingError('The server has not answered yet. Still trying…');
      }, PATIENCE_MS);
    },
    /** Stops the patience timer while the visitor is asked for a PIN. */
    pause() {
      clearTimeout(patience);
      showLandingError('');
    },
    /**
     * The server wants no other try for so long: counts down on the button.
     * @param {number} ms @param {string} text
     */
    hold(ms, text) {
      holding?.();
      heldRoom = tidyRoomId(room.value);
      showLandingError(text, 'KICKED');
      holding = countDown(submit, ms, () => {
        release();
        wording();
      });
      submit.scrollIntoView({ block: 'nearest' });
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
