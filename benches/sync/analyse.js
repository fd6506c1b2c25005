/** From what the tabs of one room recorded to readings. Pure. All times are ms of the machine's clock. */
import { median } from './statistics.js';
import { positionAt, traceOf } from './trace.js';

/** After a command readings count as "steady" from here on, and a joiner's from his third second. */
const STEADY_AFTER_MS = 2000;
const JOINED_AFTER_MS = 3000;
const JOINER_WINDOW_MS = 600;
export const JOINER_AFTER_S = [3, 6];
/** Readings of one tab within so long are one piece of evidence. */
const BLOCK_MS = 10_000;

/** The vectors that the room had, from all tabs, in order; each as it was first heard of. */
export function vectorsOf(tabs) {
  const bySeq = new Map();
  for (const { vectors } of tabs) {
    for (const vector of vectors) {
      if (vector.cause === 'start' || vector.cause === 'ROOM_STATE') continue;
      const known = bySeq.get(vector.seq);
      if (!known || vector.heard < known.heard) bySeq.set(vector.seq, vector);
    }
  }
  return [...bySeq.values()].sort((a, b) => a.seq - b.seq);
}

/**
 * @param {any[]} tabs  records of one room
 * @param {{until: number, pressure?: (from: number, to: number) => number|null}} circumstances
 */
export function analyse(tabs, { until, pressure = () => null }) {
  const vectors = vectorsOf(tabs);
  const sent = new Map(tabs.flatMap((tab) => tab.sent ?? []).map(({ seq, at }) => [seq, at]));
  const commands = [];
  vectors.forEach((vector, index) => {
    const before = vectors[index - 1];
    const kind = kindOf(vector, before);
    if (kind === null) return;
    const end = vectors[index + 1]?.heard ?? until;
    const skews = [];
    for (const tab of tabs) {
      // Only those who were in the room well before, and were still there after it.
      if (tab.joined > vector.heard - JOINED_AFTER_MS || tab.ended < vector.at + 500) continue;
      const trace = traceOf(tab, vector, end, kind, pressure);
      if (trace) skews.push(trace);
    }
    if (skews.length < 2) return;
    const effects = skews.map(({ skew }) => skew);
    // A seek is sent as one event and starts with another, when its gate opens.
    const asked = kind === 'seek' ? before : vector;
    commands.push({
      kind, room: tabs[0].room, seq: vector.seq, at: vector.at, sent: sent.get(asked.seq) ?? null, committed: vector.committed,
      ahead: vector.at - vector.heard, gateMs: kind === 'seek' ? vector.at - (sent.get(asked.seq) ?? asked.heard) : null,
      spread: Math.max(...effects) - Math.min(...effects), skews,
    });
  });

  const steady = [];
  const player = [];
  const joiners = [];
  for (const tab of tabs) {
    const { name, transport, browser, room } = tab;
    const drifts = driftsOf(tab, vectors, until);
    for (const { at, since, frame, clock } of drifts) {
      if (since < STEADY_AFTER_MS || at < tab.joined + JOINED_AFTER_MS) continue;
      const cluster = `${room}/${name}/${Math.floor(at / BLOCK_MS)}`;
      steady.push({ tab: name, transport, browser, at, value: frame, cluster });
      player.push({ tab: name, transport, browser, at, value: clock, cluster });
    }
    if (!tab.late_joiner) continue;
    const after = (seconds) => {
      const from = tab.joined + seconds * 1000;
      const window = drifts.filter(({ at, since }) => at >= from && at < from + JOINER_WINDOW_MS && since > STEADY_AFTER_MS);
      return window.length > 3 ? { frame: median(window.map(({ frame }) => frame)), clock: median(window.map(({ clock }) => clock)) } : null;
    };
    const path = drifts.filter(({ at }) => at < tab.joined + 7000).map(({ at, frame }) => [at - tab.joined, frame]);
    joiners.push({ tab: name, transport, browser, cluster: name, path, after: Object.fromEntries(JOINER_AFTER_S.map((seconds) => [seconds, after(seconds)])) });
  }
  const clock = tabs.flatMap((tab) => tab.clock
    .filter(([at]) => at > tab.joined + 1000)
    .map(([at, error, bound]) => ({ tab: tab.name, transport: tab.transport, browser: tab.browser, at, value: error, bound, cluster: `${tab.room}/${tab.name}/${Math.floor(at / BLOCK_MS)}` })));
  return { vectors, commands, steady, player, joiners, clock };
}

/** @returns {'play'|'pause'|'seek'|'rate'|null} */
export function kindOf(vector, before) {
  if (!before) return null;
  if (vector.cause === 'RATE_CHANGED') return vector.playing ? 'rate' : null;
  if (vector.cause === 'PLAY_PAUSE') {
    if (!vector.playing) return before.playing ? 'pause' : null;
    return before.playing ? null : before.gate ? 'seek' : 'play';
  }
  return null;
}

/** Frame by frame while the room plays: ms ahead of the room, and how long the vector has been in force. */
function driftsOf(tab, vectors, until) {
  const drifts = [];
  let index = 0;
  for (const [shown, mediaTime, now, currentTime] of tab.frames) {
    if (shown > until) break;
    // A pause is in force from its moment on, even before anybody has heard of it.
    while (index + 1 < vectors.length && Math.min(vectors[index + 1].heard, vectors[index + 1].at) <= shown) index += 1;
    const vector = vectors[index];
    if (!vector?.playing || shown < vector.at) continue;
    drifts.push({
      at: shown,
      since: shown - vector.at,
      frame: (mediaTime - positionAt(vector, shown)) * 1000,
      clock: (currentTime - positionAt(vector, now)) * 1000,
    });
  }
  return drifts;
}
