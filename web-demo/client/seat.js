/**
 * Chooses a tab's userId when the application doesn't. Each tab of a browser is a member of its own, or two tabs of one
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
 * @param {import('./env.js').Env} options.env  with Web Locks
 * @param {import('./storage.js').Store} options.store
 * @param {string} options.server
 * @param {string} options.roomId
 * @returns {Promise<Seat>}
 */
export async function takeSeat({ env, store, server, roomId }) {
  const tab = env.tabStorage();
  const note = `tandem:${server}:seat`;
  const lockName = (/** @type {string} */ userId) => `${note}:${roomId}:${userId}`;
  const own = read(tab, note);
  const known = store.userIds();
  const candidates = own !== null && known.includes(own) ? [own, ...known.filter((id) => id !== own)] : known;
  for (const userId of candidates) {
    const release = await hold(env, lockName(userId), userId === own ? RELOAD_MS : 0);
    if (release) return sit(userId, release);
  }
  const userId = env.uuid();
  store.addUserId(userId);
  const release = await hold(env, lockName(userId), 0);
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
 * @param {import('./env.js').Env} env
 * @param {string} name
 * @param {number} waitMs
 * @returns {Promise<(() => void)|null>}
 */
function hold(env, name, waitMs) {
  return new Promise((resolve) => {
    const abort = new AbortController();
    const timer = waitMs > 0 ? env.setTimeout(() => abort.abort(), waitMs) : null;
    /** @type {LockOptions} */
    const options = waitMs > 0 ? { signal: abort.signal } : { ifAvailable: true };
    const held = (/** @type {Lock|null} */ lock) => {
      if (timer !== null) env.clearTimeout(timer);
      if (lock === null) return resolve(null);
      return new Promise((release) => resolve(() => release(undefined)));
    };
    env.locks?.request(name, options, held).catch(() => resolve(null));
  });
}
