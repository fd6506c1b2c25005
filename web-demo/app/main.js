/** The page's own state: landing, joining (with its PIN prompts), in the room, ended. */
import { byId, fillPage } from './page.js';
import { askAfterClose } from './closed.js';
import { KICK_COOLDOWN_MS, cooldownLeft, startCooldown } from './cooldown.js';
import { codeOf, sentence } from './errors.js';
import { isTransport, readFragment, roomFragment } from './fragment.js';
import { longStorage, tabStorage } from './identity.js';
import { setupLanding, showLandingError } from './landing.js';
import { askPin } from './pin.js';
import { mountRoom } from './room-view.js';
import { openRoom } from './session.js';
import { clearToasts } from './toast.js';

/** @typedef {import('./types.js').Wish} Wish */
/** @typedef {import('./types.js').Room} Room */

const NAME_KEY = 'tandem.name';
const TRANSPORT_KEY = 'tandem.transport';
/** The room this tab is in: a reload goes straight back. */
const INSIDE_KEY = 'tandem.inside';

/** @type {{room: Room, wish: Wish, unmount: ReturnType<typeof mountRoom>} | null} */
let inside = null;
/** Number of the latest join: results of an abandoned one must not touch the page. */
let attemptNumber = 0;

fillPage();
const landing = setupLanding((wish) => join(wish), cancelJoin);
/** @type {Room | null} */
let joining = null;
window.addEventListener('hashchange', onFragment);
start();

function start() {
  const fragment = readFragment(location.hash);
  const storedTransport = longStorage.getItem(TRANSPORT_KEY);
  const wish = {
    roomId: fragment.room,
    name: fragment.name || longStorage.getItem(NAME_KEY) || '',
    pin: fragment.pin,
    owner: fragment.owner,
    over: fragment.over,
    damaged: fragment.damaged,
    transport: fragment.transport ?? (isTransport(storedTransport) ? storedTransport : 'auto'),
  };
  landing.fill(wish);
  showView('landing');
  if (holdBack(fragment.room)) return;
  const back = fragment.room !== '' && tabStorage.getItem(INSIDE_KEY) === fragment.room;
  if (fragment.room && (fragment.autojoin || (back && wish.name))) void join({ ...wish, name: wish.name || 'Guest' });
}

/** The host removed this visitor a moment ago: the form says so, and counts down. @param {string} roomId */
function holdBack(roomId) {
  const left = roomId ? cooldownLeft(roomId) : 0;
  if (left > 0) landing.hold(left, sentence({ code: 'KICKED' }));
  return left > 0;
}

/** Somebody pasted another invitation into this tab. */
function onFragment() {
  const { room, pin, owner, over, damaged } = readFragment(location.hash);
  if (inside) {
    if (!room || room === inside.wish.roomId) return;
    leave({ keepFragment: true });
  }
  landing.fill({ roomId: room, pin, owner, over, damaged });
  holdBack(room);
}

/** @param {Wish} wish */
async function join(wish) {
  const mine = ++attemptNumber;
  landing.busy(true);
  showLandingError('');
  const room = await openRoom(wish);
  joining = room;
  try {
    const entered = await waitReady(room, wish);
    if (mine !== attemptNumber) return room.leave();
    if (!entered) return landing.busy(false);
    showLandingError('');
    enter(room, wish);
  } catch (error) {
    room.leave();
    if (mine !== attemptNumber) return;
    tabStorage.removeItem(INSIDE_KEY);
    landing.busy(false);
    showView('landing');
    const wait = Number(/** @type {{retryAfterMs?: unknown}} */ (error)?.retryAfterMs ?? 0);
    if (codeOf(error) === 'KICKED' && wait > 0) startCooldown(wish.roomId, wait);
    if (codeOf(error) !== 'KICKED' || !holdBack(wish.roomId)) showLandingError(sentence(error), codeOf(error));
    return;
  } finally {
    if (joining === room) joining = null;
  }
  landing.busy(false);
}

function cancelJoin() {
  attemptNumber++;
  joining?.leave();
  joining = null;
  landing.busy(false);
  showLandingError('');
}

/**
 * Waits for the room; asks for a PIN as often as it takes. False: the visitor gave up.
 * @param {Room} room @param {Wish} wish
 */
async function waitReady(room, wish) {
  let ready = room.ready;
  for (;;) {
    try {
      await ready;
      return true;
    } catch (error) {
      if (room.state !== 'closed') {
        // It goes on trying; the visitor is told why it takes so long, and can stop it.
        showLandingError(sentence(error), codeOf(error));
        ready = room.ready;
        continue;
      }
      if (!/^(PIN_|BAD_PIN)/.test(codeOf(error))) throw error;
      landing.pause();
      const pin = await askPin(error, wish.pin !== '');
      if (pin === null) {
        room.leave();
        return false;
      }
      if (joining === room) landing.busy(true);
      wish.pin = pin;
      ready = room.retryWithPin(pin);
    }
  }
}

/** @param {Room} room @param {Wish} wish @param {{fresh?: boolean}} [options] */
function enter(room, wish, { fresh = true } = {}) {
  longStorage.setItem(NAME_KEY, wish.name);
  longStorage.setItem(TRANSPORT_KEY, wish.transport);
  const reloaded = tabStorage.getItem(INSIDE_KEY) === wish.roomId;
  tabStorage.setItem(INSIDE_KEY, wish.roomId);
  writeFragment(wish);
  showView('room');
  const unmount = mountRoom(room, wish, {
    fresh,
    reloaded,
    leave: () => leave(),
    reconnect: (transport) => void switchTransport(transport),
    pinChanged: (pin) => {
      wish.pin = pin;
      writeFragment(wish);
    },
    closed: (detail) => void onClosed(room, wish, detail),
  });
  inside = { room, wish, unmount };
}

/** @param {Wish} wish */
function writeFragment(wish) {
  history.replaceState(null, '', roomFragment({ room: wish.roomId, pin: wish.pin, owner: wish.owner }));
  document.title = `${wish.roomId} · tandem`;
}

/** @param {{keepFragment?: boolean}} [options] */
function leave({ keepFragment = false } = {}) {
  if (!inside) return;
  const { room, wish, unmount } = inside;
  inside = null;
  attemptNumber++;
  unmount();
  room.leave();
  tabStorage.removeItem(INSIDE_KEY);
  if (!keepFragment) history.replaceState(null, '', location.pathname);
  document.title = 'tandem';
  clearToasts();
  // A visitor who left may want back: the form names the room.
  const back = keepFragment ? wish : { roomId: wish.roomId, pin: '', owner: wish.owner, left: true };
  landing.fill({ ...back, name: wish.name, transport: wish.transport });
  landing.busy(false);
  showView('landing');
}

/** @param {import('./types.js').Transport} transport */
async function switchTransport(transport) {
  if (!inside) return;
  const { room: old, wish, unmount } = inside;
  const mine = ++attemptNumber;
  wish.transport = transport;
  unmount({ keepFilm: true });
  old.detach();
  const room = await openRoom(wish);
  if (mine !== attemptNumber) return room.leave();
  // The view stays and says "reconnecting" by itself; it needs the new room before that room is ready,
  // and hears of a refusal through `closed`.
  enter(room, wish, { fresh: false });
}

/**
 * @param {Room} room
 * @param {Wish} wish
 * @param {{code: number | string, reason: string, retry: boolean, retryAfterMs?: number}} detail
 */
async function onClosed(room, wish, detail) {
  if (inside?.room !== room) return;
  if (detail.retry) {
    // The PIN changed while the line was down.
    const pin = await askPin({ code: detail.code }, wish.pin !== '');
    if (inside?.room !== room) return;
    if (pin === null) return leave();
    wish.pin = pin;
    writeFragment(wish);
    room.retryWithPin(pin).catch(() => {});
    return;
  }
  if (detail.code === 4006 || detail.code === 'KICKED') startCooldown(wish.roomId, detail.retryAfterMs ?? KICK_COOLDOWN_MS);
  inside.unmount();
  tabStorage.removeItem(INSIDE_KEY);
  const rejoin = await askAfterClose(detail, cooldownLeft(wish.roomId));
  if (inside?.room !== room) return;
  leave({ keepFragment: rejoin });
  if (rejoin) void join(wish);
  else holdBack(wish.roomId);
}

/** @param {'landing' | 'room'} view */
function showView(view) {
  byId('landing', HTMLElement).hidden = view !== 'landing';
  byId('room', HTMLElement).hidden = view !== 'room';
  if (view === 'landing') landing.focus();
  // From here, Tab leads into the player's controls.
  else byId('stage', HTMLElement).focus({ preventScroll: true });
}
