/** The share dialog: QR code, copy, and the system's own share sheet where there is one. */
import { byId, listen, openDialog } from './dom.js';
import { roomFragment } from './fragment.js';
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
  let opened = 0;

  const full = () => `${location.origin}${location.pathname}${roomFragment(wish.roomId, room.hasPin ? wish.pin : '')}`;

  const open = async () => {
    const mine = ++opened;
    show(full());
    note.textContent = room.hasPin
      ? wish.pin
        ? 'The link carries the PIN behind its #, which browsers never send to a server. Share it as you would the PIN.'
        : 'The room has a PIN that this tab does not know. Newcomers will be asked for it.'
      : 'Anyone with the link can come in.';
    copy.textContent = 'Copy';
    void openDialog(dialog);
    copy.focus();
    // Short links lead to the room without its PIN, so a room with one is shared by its full link.
    if (room.hasPin) return;
    const short = await shortLink(wish.roomId);
    if (short && mine === opened && dialog.open && !room.hasPin) show(short);
  };

  /** @param {string} link */
  const show = (link) => {
    field.value = link;
    drawQr(link);
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

/** @param {string} roomId @returns {Promise<string | null>} */
async function shortLink(roomId) {
  try {
    const answer = await fetch(`/api/short-id/${encodeURIComponent(roomId)}`, { signal: AbortSignal.timeout(4000) });
    if (!answer.ok) return null;
    const { shortUrl } = await answer.json();
    const url = new URL(shortUrl, location.href);
    return /^https?:$/.test(url.protocol) ? url.href : null;
  } catch {
    // The full link works just as well.
    return null;
  }
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
