/**
 * The share dialog: QR code, copy, and the system's own share sheet where there is one. The link is the page's own
 * address with the room's name and the hash of its owner's key: it works as long as the server does, and a room that is
 * opened again by it still belongs to its owner.
 */
import { othersOrigin } from './addresses.js';
import { byId, listen, openDialog } from './dom.js';
import { ownerOf, roomFragment } from './fragment.js';
import { encodeQr, qrPath } from './qr.js';
import { toast } from './toast.js';

const QUIET = 2;

/** @param {import('./types.js').Ctx} ctx */
export function setupInvite({ room, wish, signal }) {
  const dialog = byId('invite-dialog', HTMLDialogElement);
  const field = byId('invite-link', HTMLInputElement);
  const copy = byId('invite-copy', HTMLButtonElement);
  const share = byId('invite-share', HTMLButtonElement);
  const note = byId('invite-note', HTMLElement);
  const where = byId('invite-where', HTMLElement);
  let opened = 0;

  /** @param {string} origin */
  const link = (origin) => {
    const fragment = roomFragment({ room: wish.roomId, pin: room.hasPin ? wish.pin : '', owner: ownerOf(/** @type {any} */ (room).owner) || wish.owner });
    return `${origin}${location.pathname}${fragment}`;
  };
  /** @param {string} origin @param {string} warning  empty: none */
  const show = (origin, warning = '') => {
    field.value = link(origin);
    drawQr(field.value);
    where.textContent = warning;
    where.hidden = warning === '';
  };

  const open = async () => {
    const mine = ++opened;
    show(location.origin);
    note.textContent = room.hasPin
      ? wish.pin
        ? 'The link contains the PIN: anybody who has it can come in.'
        : 'The room has a PIN, which this link does not contain. Newcomers will be asked for it.'
      : 'Anyone with the link can come in, today or another day.';
    copy.textContent = 'Copy';
    void openDialog(dialog);
    copy.focus();
    const { origin, warning } = await othersOrigin();
    if (mine === opened && dialog.open) show(origin, warning);
  };

  byId('invite-button', HTMLButtonElement).onclick = () => void open();
  copy.onclick = async () => {
    if (await copyText(field)) {
      copy.textContent = 'Copied';
      setTimeout(() => (copy.textContent = 'Copy'), 2000);
    } else {
      field.select();
      toast('Press Ctrl+C to copy the link.');
    }
  };
  share.hidden = typeof navigator.share !== 'function';
  share.onclick = () => void navigator.share({ title: 'Watch with me', url: field.value }).catch(() => {});
  listen(signal, 'abort', () => dialog.close());
  return { open: () => void open() };
}

/** @param {HTMLInputElement} field */
async function copyText(field) {
  try {
    await navigator.clipboard.writeText(field.value);
    return true;
  } catch {
    // No clipboard outside secure contexts: the old way still works there.
    field.select();
    return document.execCommand('copy');
  }
}

/** @param {string} text */
function drawQr(text) {
  const svg = byId('invite-qr', SVGSVGElement);
  const code = encodeQr(text);
  const box = /** @type {HTMLElement} */ (svg.parentElement);
  box.hidden = code === null;
  if (!code) return;
  svg.setAttribute('viewBox', `${-QUIET} ${-QUIET} ${code.size + 2 * QUIET} ${code.size + 2 * QUIET}`);
  const path = document.createElementNS('http://www.w3.org/2000/svg', 'path');
  path.setAttribute('d', qrPath(code));
  svg.replaceChildren(path);
}
