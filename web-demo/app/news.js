/**
 * Tells what the others in the room did: a line in the chat, and a toast where it changes what this viewer sees or may
 * do. Members who came or went, and a new host, are found by comparing the list of members with the one before, so that
 * a missed event is told too; the author of an act is taken from its event.
 */
import { listen, person } from './dom.js';
import { clockText, filmTitle, isolate } from './format.js';
import { testFilm } from './source.js';
import { toast } from './toast.js';

/** Members of a call say "here" to each newcomer: a toast tells of a call once in this time. */
const CALL_NEWS_EVERY_MS = 60_000;
/** More members who came, or left, at the same time are counted, not named. */
const NAMED = 4;
/** Changes within this time of each other are told together. */
const TOGETHER_MS = 150;

/** @typedef {(...words: (string | Node)[]) => void} Say */

/**
 * @param {import('./types.js').Ctx} ctx @param {Say} say @param {boolean} fresh
 * @param {boolean} reloaded whether this tab was in the room a moment ago
 */
export function setupNews({ room, signal }, say, fresh, reloaded) {
  const nameOf = (/** @type {string | undefined} */ userId) => room.members.find((m) => m.userId === userId)?.username ?? 'Somebody';
  const isSelf = (/** @type {string | undefined} */ userId) => userId === room.self.userId;
  /** Why members left that were removed. @type {Map<string, string>} */
  const removed = new Map();

  /**
   * @param {boolean} own     whether it was we who did it
   * @param {string} name
   * @param {string} did      "changed the film"
   */
  const tell = (own, name, did) => {
    if (own) return say(`You ${did}`);
    say(person(name), ` ${did}`);
    toast(`${isolate(name)} ${did}.`, 'info');
  };

  listen(room, 'message', (event) => {
    const { direction, message } = event.detail;
    // The room learns of the message right after this; its name for the film is the one that counts.
    if (direction === 'in') queueMicrotask(() => report(message));
  }, signal);
  /** @param {any} message */
  function report(message) {
    const host = nameOf(room.hostUserId ?? undefined);
    switch (message.type) {
      case 'URL_CHANGE':
        return tell(isSelf(message.userId), nameOf(message.userId), `put on ${titleOf(room.url)}`);
      case 'PIN_CHANGED':
        return tell(room.self.isHost, host, message.hasPin ? 'set a PIN for newcomers' : 'removed the PIN');
      case 'GUEST_CONTROL':
        return tell(room.self.isHost, host, message.enabled ? 'gave everyone play, pause and seek' : 'took play, pause and seek back');
      case 'USER_LEFT':
        if (message.reason === 'kicked' || message.reason === 'banned') removed.set(message.userId, message.reason);
        return;
    }
  }

  let callToldAt = -Infinity;
  listen(room, 'custom', (event) => {
    const { namespace, payload, userId } = event.detail;
    if (namespace !== 'tandem.call' || payload?.kind !== 'here' || isSelf(userId)) return;
    say(person(nameOf(userId)), ' is in the call');
    if (performance.now() - callToldAt < CALL_NEWS_EVERY_MS) return;
    callToldAt = performance.now();
    toast(`${isolate(nameOf(userId))} started a call. To take part, press “Join call” at the top.`, 'info');
  }, signal);

  /** Whether the film was to play when the connection was lost. */
  let played = false;
  listen(room, 'state', () => {
    if (room.state === 'reconnecting') played ||= room.wantsPlaying;
    if (room.state !== 'joined') return;
    if (played && !room.wantsPlaying && !room.ended) sayKept(true);
    played = false;
  }, signal);

  /**
   * A room whose members were all lost (asleep, without a network) is kept, and stands where the last one was. No
   * message says so: it shows by a film that stands although nobody is there who stopped it.
   * @param {boolean} back whether we were in it until a moment ago
   */
  function sayKept(back) {
    const alone = !room.members.some((m) => m.connected && m.userId !== room.self.userId);
    const at = clockText(room.positionNow());
    const text = alone
      ? `The room was kept while everybody was away. It is paused at ${at}.`
      : back ? `The film was paused at ${at} while you were away.` : '';
    if (!text) return;
    say(text);
    toast(text, 'info');
  }

  const sayHost = (/** @type {string | null} */ userId) =>
    userId === room.self.userId ? ['You host the room now'] : [person(nameOf(userId ?? undefined)), ' hosts the room now'];

  /** @type {Map<string, string> | null} */
  let known = null;
  let host = room.hostUserId;
  const compare = () => {
    timer = undefined;
    if (room.state !== 'joined') return;
    const now = new Map(room.members.map((m) => [m.userId, m.username]));
    if (known === null) {
      const kept = room.url !== null && !room.wantsPlaying && !room.ended && room.positionNow() > 1;
      if (fresh) say(now.size === 1 && !kept ? 'You opened the room' : 'You joined');
      if (fresh && kept && !reloaded) sayKept(false);
    } else {
      let newHost = room.hostUserId === host ? null : room.hostUserId;
      const came = [...now.keys()].filter((userId) => !known?.has(userId) && userId !== newHost);
      const crowd = came.length > NAMED ? new Set(came) : new Set();
      if (crowd.size > 0) say(`${crowd.size} people joined`);
      for (const [userId, name] of now) {
        const before = known.get(userId);
        if (crowd.has(userId)) continue;
        if (before === undefined) {
          say(person(name), userId === newHost ? ' joined and hosts the room now' : ' joined');
          if (userId === newHost) newHost = null;
        } else if (before !== name) say(person(before), ' is now ', person(name));
      }
      const went = [...known.keys()].filter((userId) => !now.has(userId) && userId !== host && !removed.has(userId));
      const leaving = went.length > NAMED ? new Set(went) : new Set();
      if (leaving.size > 0) say(`${leaving.size} people left`);
      for (const [userId, name] of known) {
        if (now.has(userId) || leaving.has(userId)) continue;
        const why = removed.get(userId);
        const follows = userId === host && newHost !== null;
        const gone = why === 'banned' ? ' was banned by the host' : why === 'kicked' ? ' was removed by the host' : ' left';
        say(person(name), gone, ...(follows ? ['. ', ...sayHost(newHost)] : []));
        if (follows) newHost = null;
        removed.delete(userId);
      }
      if (newHost !== null) say(...sayHost(newHost));
    }
    known = now;
    host = room.hostUserId;
  };
  const differs = () => known === null || room.hostUserId !== host || room.members.length !== known.size
    || room.members.some((m) => known?.get(m.userId) !== m.username);
  // One act may be two events (a host leaves, another follows): changes that come together are one line. The time runs
  // from the first difference, not from any change (a tick), or it could end between the two.
  /** @type {ReturnType<typeof setTimeout> | undefined} */
  let timer;
  listen(room, 'change', () => {
    if (timer === undefined && differs()) timer = setTimeout(compare, TOGETHER_MS);
  }, signal);
  signal.addEventListener('abort', () => clearTimeout(timer), { once: true });
  compare();
}

/** @param {string | null} url */
function titleOf(url) {
  return url === null ? 'no film' : url === testFilm() ? 'the test film' : filmTitle(url);
}
