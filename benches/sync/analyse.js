/** From what the tabs recorded to figures. Pure. All times are ms of the machine's clock unless they say otherwise. */

/** A frame of the test film, s. */
const FRAME_S = 1 / 25;
/** After a command readings count as "steady" from here on, and a joiner's from his third second. */
const STEADY_AFTER_MS = 2000;
const JOINED_AFTER_MS = 3000;
const JOINER_WINDOW_MS = 600;
/** A start that shows nothing new for so long has failed. */
const START_WITHIN_MS = 5000;

export const positionAt = ({ position, rate, playing, at }, now) => (playing && now > at ? position + ((now - at) / 1000) * rate : position);

/** The vectors that the room had, from all tabs, in order. */
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

/** The vector in force is the last one whose `at` has come; its command tells whether it is a start. */
export function analyse(tabs, { until }) {
  const vectors = vectorsOf(tabs);
  const following = (index) => vectors[index + 1]?.heard ?? until;
  const commands = [];
  vectors.forEach((vector, index) => {
    const before = vectors[index - 1];
    const kind = kindOf(vector, before);
    if (kind === null) return;
    const end = following(index);
    const skews = [];
    for (const tab of tabs) {
      // Only those who were in the room well before, and were still there after it.
      if (tab.joined > vector.heard - JOINED_AFTER_MS || tab.ended < vector.at + 500) continue;
      const skew = kind === 'pause' ? pauseSkew(tab, vector, end) : startSkew(tab, vector, end, kind);
      if (skew) skews.push({ tab: tab.name, transport: tab.transport, ...skew });
    }
    if (skews.length < 2) return;
    const effects = skews.map(({ effect }) => effect);
    commands.push({ kind, seq: vector.seq, at: vector.at, heardAhead: vector.at - vector.heard, spread: Math.max(...effects) - Math.min(...effects), skews });
  });

  const steady = [];
  const player = [];
  const joiners = [];
  for (const tab of tabs) {
    const drifts = driftsOf(tab, vectors, until);
    for (const drift of drifts) {
      if (drift.since < STEADY_AFTER_MS || drift.at < tab.joined + JOINED_AFTER_MS) continue;
      steady.push({ tab: tab.name, transport: tab.transport, at: drift.at, value: drift.frame });
      player.push({ tab: tab.name, transport: tab.transport, at: drift.at, value: drift.clock });
    }
    if (!tab.late_joiner) continue;
    const window = drifts.filter(({ at, since }) => at >= tab.joined + JOINED_AFTER_MS && at < tab.joined + JOINED_AFTER_MS + JOINER_WINDOW_MS && since > STEADY_AFTER_MS);
    const path = drifts.filter(({ at }) => at < tab.joined + 6000).map(({ at, frame }) => [at - tab.joined, frame]);
    if (window.length > 3) joiners.push({ tab: tab.name, transport: tab.transport, value: median(window.map(({ frame }) => frame)), player: median(window.map(({ clock }) => clock)), path });
  }
  const clock = tabs.flatMap((tab) => tab.clock.filter(([at]) => at > tab.joined + 1000).map(([at, error, bound]) => ({ tab: tab.name, transport: tab.transport, at, value: error, bound })));
  return { vectors, commands, steady, player, joiners, clock };
}

/** @returns {'play'|'pause'|'seek'|'rate'|null} */
function kindOf(vector, before) {
  if (!before) return null;
  if (vector.cause === 'RATE_CHANGED') return vector.playing ? 'rate' : null;
  if (vector.cause === 'PLAY_PAUSE') {
    if (!vector.playing) return before.playing ? 'pause' : null;
    return before.playing ? null : before.gate ? 'seek' : 'play';
  }
  return null;
}

/**
 * When a start took effect: the first new frame, against the moment at which the vector says that a frame boundary is
 * passed for the first time. Late frames of a player that stands still don't count; a start that comes late counts in
 * full.
 */
function startSkew(tab, vector, end, kind) {
  if (kind === 'rate') return driftSkew(tab, vector, end);
  const begun = tab.events.filter(({ type, at }) => type === 'play()' && at > vector.heard - 50 && at < end).pop();
  if (!begun) return null;
  const from = begun.at;
  const due = (mediaTime) => vector.at + ((mediaTime - vector.position) / vector.rate) * 1000;
  const index = tab.frames.findIndex(([shown, mediaTime]) => shown >= from && shown < Math.min(end, vector.at + START_WITHIN_MS) && mediaTime > vector.position + 0.001);
  if (index === -1) return null;
  const [shown] = tab.frames[index];
  const firstBoundary = (Math.floor(vector.position / FRAME_S + 1e-3) + 1) * FRAME_S;
  const effect = shown - due(firstBoundary);
  return { effect, drift: driftSkew(tab, vector, end)?.effect ?? null };
}

/** For a film that goes on at another rate: how late it is in the first quarter of a second of the new vector. */
function driftSkew(tab, vector, end) {
  const late = tab.frames
    .filter(([shown]) => shown > vector.at && shown < Math.min(end, vector.at + 260))
    .map(([shown, mediaTime]) => ((positionAt(vector, shown) - mediaTime) * 1000) / vector.rate);
  return late.length >= 3 ? { effect: median(late), drift: median(late) } : null;
}

/** When a pause took effect: the player's state changed, against the moment for which it was scheduled. */
function pauseSkew(tab, vector, end) {
  const paused = tab.events.find(({ type, at }) => type === 'pause()' && at > vector.heard - 500 && at < end);
  if (!paused) return null;
  const held = tab.events.filter(({ at }) => at >= paused.at && at < end).pop() ?? paused;
  return { effect: paused.at - vector.at, drift: (held.position - vector.position) * 1000 };
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

export function median(values) {
  return quantile([...values].sort((a, b) => a - b), 0.5);
}

function quantile(sorted, q) {
  return sorted.length ? sorted[Math.min(sorted.length - 1, Math.floor(q * sorted.length))] : null;
}

/** Of the sizes; and the median with its sign, to tell a bias from a spread. */
export function summary(values) {
  const sizes = values.map(Math.abs).sort((a, b) => a - b);
  const round = (value) => (value === null ? null : Math.round(value * 100) / 100);
  return { n: sizes.length, p50: round(quantile(sizes, 0.5)), p95: round(quantile(sizes, 0.95)), max: round(quantile(sizes, 1)), signedMedian: values.length ? round(median(values)) : null };
}

export function byTransport(entries, pick = ({ value }) => value) {
  const of = (kind) => summary(entries.filter(({ transport }) => transport === kind).map(pick));
  return { webtransport: of('webtransport'), websocket: of('websocket'), all: summary(entries.map(pick)) };
}
