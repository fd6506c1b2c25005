/** The film that plays, and the dialog that changes it. */
import { onChange } from './change.js';
import { byId, every, listen, openDialog, setText } from './dom.js';
import { codeOf, sentence } from './errors.js';
import { awaySeconds, filmTitle, isolate } from './format.js';
import { attempt } from './toast.js';

/** The film that ships with the server. */
export const testFilm = () => new URL('media/film.webm', document.baseURI).href;

/** @param {import('./types.js').Ctx} ctx */
export function setupSource(ctx) {
  const { room, signal } = ctx;
  const dialog = byId('source-dialog', HTMLDialogElement);
  const url = byId('source-url', HTMLInputElement);
  const complaint = byId('source-error', HTMLElement);
  const button = byId('source-button', HTMLButtonElement);

  const complain = (/** @type {string} */ text) => {
    complaint.textContent = text;
    complaint.hidden = text === '';
    if (text) url.setAttribute('aria-invalid', 'true');
    else url.removeAttribute('aria-invalid');
  };
  const open = () => {
    url.value = room.url ?? testFilm();
    complain('');
    void openDialog(dialog);
    url.select();
  };
  button.onclick = open;
  byId('empty-choose', HTMLButtonElement).onclick = open;
  byId('empty-test-film', HTMLButtonElement).onclick = () => void attempt(() => room.setUrl(testFilm(), 0));
  byId('source-test', HTMLButtonElement).onclick = () => {
    url.value = testFilm();
    void put();
  };
  listen(byId('source-form', HTMLFormElement), 'submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    void put();
  }, signal);
  const put = async () => {
    complain('');
    const wanted = url.value.trim();
    const problem = urlProblem(wanted);
    if (problem) return complain(problem);
    try {
      await room.setUrl(wanted, 0);
      dialog.close();
    } catch (error) {
      complain(sentence(error));
      complaint.dataset.code = codeOf(error);
    }
  };

  // A visitor who opens a room alone gets the test film, so that the first press of play does something.
  const offer = () => {
    if (room.url || !room.self.isHost || room.members.length > 1) return;
    void room.setUrl(testFilm(), 0).catch(() => {
      // The server's ALLOWED_MEDIA_HOSTS may not include its own host: the empty state says what to do.
    });
  };
  if (room.state === 'joined') offer();

  const update = () => {
    const { canControl, isHost } = room.self;
    const host = room.members.find((m) => m.isHost);
    setText(byId('now-title', HTMLElement), room.url ? (room.url === testFilm() ? 'The test film' : filmTitle(room.url)) : 'No film yet');
    setText(byId('now-host', HTMLElement), room.url && room.url !== testFilm() ? hostOf(room.url) : '');
    byId('now-title', HTMLElement).title = room.url ?? '';
    button.hidden = !canControl;
    setText(button, room.url ? 'Change film' : 'Choose film');
    setText(byId('authority', HTMLElement), authority({
      canControl,
      isHost,
      guestControl: room.guestControl,
      host: host && isolate(host.username),
      away: awaySeconds(host, room.clock.roomTime()),
      // A viewer never hosts.
      alone: room.role !== 'audience' && !room.members.some((m) => m.connected && m.userId !== room.self.userId),
    }));
  };
  onChange(room, update, signal);
  every(1000, update, signal);
}

/**
 * Why one's own controls work, or don't.
 * @param {object} who
 * @param {boolean} who.canControl
 * @param {boolean} who.isHost
 * @param {boolean} who.guestControl
 * @param {string} [who.host]    the host's name
 * @param {number | null} [who.away]  how long the host's place is kept yet, s; null: the host is here, or nobody knows
 * @param {boolean} [who.alone]  nobody else is here
 */
export function authority({ canControl, isHost, guestControl, host, away = null, alone = false }) {
  if (isHost) return guestControl ? 'You host this room. Everyone can play, pause and seek.' : 'You host this room. Only you can play, pause and seek.';
  if (canControl) return `Everyone can play, pause and seek. ${host ?? 'Nobody'} hosts.`;
  if (host && away !== null) return `${host} hosts, but is away. Unless they come back within ${away} s, ${alone ? 'you host the room' : 'somebody here becomes host'}.`;
  return host ? `Only ${host} can play, pause and seek. As the host, ${host} can also let everyone do it.` : 'Nobody hosts at the moment, so nobody can play, pause or seek.';
}

/** @param {string} url */
function hostOf(url) {
  try {
    return new URL(url).host;
  } catch {
    return '';
  }
}

/** @param {string} text */
function urlProblem(text) {
  let url;
  try {
    url = new URL(text);
  } catch {
    return 'That is not a complete address. It begins with https://';
  }
  const here = url.origin === location.origin;
  return url.protocol === 'https:' || here ? '' : 'The address must begin with https://';
}
