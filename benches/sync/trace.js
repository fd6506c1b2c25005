/**
 * One command in one tab, step by step, and what of its lateness is whose. Pure. All times are ms of the machine's
 * clock.
 *
 *   sent → committed → heard → ordered → first frame      and the moment `due` that the room had set
 *
 * For a start (play, or the start after a seek) the parts add up to the skew:
 * * `hearing`   the order came late because the news did: the lead was too short for the line
 * * `clock`     the tab's room time was wrong by this
 * * `timer`     the timer that gave the order ran late: the scheduler's
 * * `client`    the rest of how late or early the order was: our decision
 * * `pipeline`  the player took longer (or shorter) to start than the client had counted on
 * * `screen`    the frame waited for the screen to refresh: nobody's
 * Part of `pipeline` is the scheduler's too, because decoders wait for a core like everybody: `pressure` says for which
 * share of the time from the order to the frame some task of the machine waited for one.
 */

/** A frame of the test film, s. */
const FRAME_S = 1 / 25;
/** The screens of headless browsers refresh 60 times a second. */
const REFRESH_MS = 1000 / 60;
/** A start that shows nothing new for so long has failed. */
const START_WITHIN_MS = 5000;
const SAME_PLACE_S = 0.001;
/** A command met a calm machine: its timer was on time, and few waited for a core. */
const CALM_TIMER_MS = 4;
const CALM_PRESSURE = 0.2;
const RATE_WINDOW_MS = 260;

export const CAUSES = ['hearing', 'clock', 'timer', 'client', 'pipeline', 'screen'];

export const positionAt = ({ position, rate, playing, at }, now) => (playing && now > at ? position + ((now - at) / 1000) * rate : position);

/**
 * The moment at which a command took effect, against the one that was set for it.
 * @param {any} tab  its record
 * @param {any} vector
 * @param {number} end  when the next command was heard of
 * @param {'play'|'seek'|'pause'|'rate'} kind
 * @param {(from: number, to: number) => number|null} pressure
 */
export function traceOf(tab, vector, end, kind, pressure) {
  const heard = tab.vectors.find(({ seq, cause }) => seq === vector.seq && cause === vector.cause)?.heard ?? null;
  const base = { tab: tab.name, transport: tab.transport, browser: tab.browser, heard };
  const step = kind === 'pause' ? pauseOf(tab, vector, end) : kind === 'rate' ? rateOf(tab, vector, end) : startOf(tab, vector, end, heard);
  if (step === null) return null;
  const share = step.ordered === null ? null : pressure(step.ordered - 20, step.shown ?? step.ordered + 60);
  const calm = (step.timerLate ?? 0) < CALM_TIMER_MS && share !== null && share < CALM_PRESSURE;
  return { ...base, ...step, pressure: share, calm };
}

/** The first new frame, against the moment at which the vector passes a frame's boundary for the first time. */
function startOf(tab, vector, end, heard) {
  const begun = tab.events.filter(({ type, at }) => type === 'play()' && at > vector.heard - 50 && at < end).pop();
  if (!begun) return null;
  const frame = tab.frames.find(([shown, mediaTime]) => shown >= begun.at && shown < Math.min(end, vector.at + START_WITHIN_MS) && mediaTime > vector.position + SAME_PLACE_S);
  if (!frame) return null;
  const [shown, mediaTime, now, currentTime] = frame;
  const due = (position) => vector.at + ((position - vector.position) / vector.rate) * 1000;
  const boundary = (Math.floor(vector.position / FRAME_S + 1e-3) + 1) * FRAME_S;
  const skew = shown - due(boundary);

  const orderDue = due(begun.position) - begun.counted;
  const orderOff = begun.at - orderDue;
  const late = Math.max(0, orderOff);
  const timer = Math.min(late, begun.timerLate);
  const hearing = Math.min(late - timer, Math.max(0, (heard ?? vector.heard) - orderDue));
  // Room time that runs ahead makes a tab early.
  const clock = -clockErrorAt(tab, begun.at);
  const client = orderOff - timer - hearing - clock;
  const screen = Math.max(0, Math.min(REFRESH_MS, ((currentTime - mediaTime) * 1000) / vector.rate + (shown - now)));
  const pipeline = skew - orderOff - screen;
  return { ordered: begun.at, timerLate: begun.timerLate, counted: begun.counted, shown, skew, causes: { hearing, clock, timer, client, pipeline, screen } };
}

/** A film that goes on at another rate: the median lateness of its first quarter of a second. */
function rateOf(tab, vector, end) {
  const late = tab.frames
    .filter(([shown]) => shown > vector.at && shown < Math.min(end, vector.at + RATE_WINDOW_MS))
    .map(([shown, mediaTime]) => [((positionAt(vector, shown) - mediaTime) * 1000) / vector.rate, shown])
    .sort(([a], [b]) => a - b);
  if (late.length < 3) return null;
  const asked = tab.events.find(({ type, at }) => type === 'ratechange' && at > vector.heard - 50 && at < end);
  const [skew, shown] = late[Math.floor(late.length / 2)];
  return { ordered: asked?.at ?? null, timerLate: null, counted: null, shown, skew, causes: null };
}

/** The player's state changes with the call of `pause()`. */
function pauseOf(tab, vector, end) {
  const paused = tab.events.find(({ type, at }) => type === 'pause()' && at > vector.heard - 500 && at < end);
  if (!paused) return null;
  return { ordered: paused.at, timerLate: paused.timerLate, counted: null, shown: null, skew: paused.at - vector.at, causes: null };
}

function clockErrorAt(tab, at) {
  let nearest = null;
  for (const sample of tab.clock) if (nearest === null || Math.abs(sample[0] - at) < Math.abs(nearest[0] - at)) nearest = sample;
  return nearest?.[1] ?? 0;
}

/** One line a command and tab. */
export function traceTable(runs) {
  const columns = ['run', 'room', 'seq', 'kind', 'tab', 'browser', 'transport', 'sent', 'committed', 'heard', 'due', 'ordered', 'firstFrame', 'skew', ...CAUSES, 'pressure', 'calm'];
  const number = (value) => (value === null || value === undefined ? '' : typeof value === 'number' ? String(Math.round(value * 100) / 100) : String(value));
  const rows = runs.flatMap(({ name, commands }) => commands.flatMap(({ room, seq, kind, sent, committed, at, skews }) => skews.map((each) => [
    name, room, seq, kind, each.tab, each.browser, each.transport, sent, committed, each.heard, at, each.ordered, each.shown, each.skew,
    ...CAUSES.map((cause) => each.causes?.[cause]), each.pressure, each.calm,
  ])));
  return [columns, ...rows].map((row) => row.map(number).join(',')).join('\n') + '\n';
}
