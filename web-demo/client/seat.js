/**
 * Who a tab is when the application doesn't say. Each tab of a browser is a member of its own, or two tabs of one
 * visitor would take the membership from each other; a reload, and a visit next week, is the same member again.
 *
 * The ids of a browser stand in its storage. A tab sits on one of them: it holds a Web Lock of that id and room for as
 * long as its page lives in front of the server, and notes the id in the storage of the tab, so that a reload prefers
 * it. "Duplicate tab" copies that note, and the lock tells the copy from a reload.
 *
 * Web Locks exist in secure contexts only. Elsewhere all tabs share the first id, as without a seat.
 *
 * @typedef {{userId: string, release: () => void}} Seat
 */

/** A reload finds the lock of its own earlier page still held for a moment. */
const RELOAD_MS = 300;

/**
 * @param {object} options
 * @param {LockManager} options.locks
 * @param {import('./storage.js').Store} options.store
 * @param {Storage|null} options.tab  sessionStorage
 * @param {string} options.server
 * @param {string} options.roomId
 * @param {() => string} options.make
 * @returns {Promise<Seat>}
 */
export async function takeSeat({ locks, store, tab, server, roomId, make }) {
  const note = `tandem:${server}:seat`;
  const lockName = (/** @type {string} */ userId) => `${note}:${roomId}:${userId}`;
  const own = read(tab, note);
  const known = store.userIds();
  const candidates = own !== null && known.includes(own) ? [own, ...known.filter((id) => id !== own)] : known;
  for (const userId of candidates) {
    const release = await hold(locks, lockName(userId), userId === own ? RELOAD_MS : 0);
    if (release) return sit(userId, release);
  }
  const userId = make();
  store.addUserId(userId);
  const release = await hold(locks, lockName(userId), 0);
  return sit(userId, release ?? (() => {}));

  /**
   * @param {string} userId
   * @param {() => void} release
   */
  function sit(userId, release) {
    try {
      tab?.setItem(note, userId);
    } catch {
      // Full or forbidden: a reload takes whichever id is free.
    }
    return { userId, release };
  }
}

/**
 * @param {Storage|null} tab
 * @param {string} key
 */
function read(tab, key) {
  try {
    return tab?.getItem(key) ?? null;
  } catch {
    return null;
  }
}

/**
 * Holds a lock until the returned function is called, or the page is gone. null: another tab holds it.
 * @param {LockManager} locks
 * @param {string} name
 * @param {number} waitMs
 * @returns {Promise<(() => void)|null>}
 */
function hold(locks, name, waitMs) {
  return new Promise((resolve) => {
    /** @type {LockOptions} */
    const options = waitMs > 0 ? { signal: AbortSignal.timeout(waitMs) } : { ifAvailable: true };
    const held = (/** @type {Lock|null} */ lock) => {
      if (lock === null) return resolve(null);
      return new Promise((release) => resolve(() => release(undefined)));
    };
    locks.request(name, options, held).catch(() => resolve(null));
  });
}
