/**
 * The lines, the goals, and the runs. Pure data and choice.
 *
 * @typedef {{delayMs: number, jitterMs: number, loss: number, kbit: number, queueBytes: number}} Way
 * @typedef {object} Profile
 * @property {string} title
 * @property {Way} down  from the server
 * @property {Way} up
 * @property {3|6} joinedSeconds  a late joiner is judged so long after joining
 * @property {number} skewGoalMs  p95
 * @typedef {{profile: string, tabs: number}} RoomPlan
 * @typedef {object} Run
 * @property {string} name
 * @property {RoomPlan[]} rooms  side by side, with one server
 * @property {'mixed'|'seeks'|'drift'} style
 * @property {number} commands  for each profile, as is the next
 * @property {number} joins
 * @property {number} seconds  the run ends then at the latest
 */

/** @param {Partial<Way>} differences @returns {Way} */
const way = (differences = {}) => ({ delayMs: 0, jitterMs: 0, loss: 0, kbit: 100_000, queueBytes: 1_000_000, ...differences });
const both = (/** @type {Partial<Way>} */ differences) => ({ down: way(differences), up: way(differences) });

/** A frame of the test film, ms: nobody sees less. */
const FRAME_MS = 42;

/** @type {Record<string, Profile>} */
export const PROFILES = {
  clean: { title: 'no delay, no loss', ...both({}), joinedSeconds: 3, skewGoalMs: 20 },
  rtt50: { title: '50 ms round trip', ...both({ delayMs: 25 }), joinedSeconds: 6, skewGoalMs: FRAME_MS },
  // Two jitters of up to 30 ms each: round trips between 70 and 130 ms.
  bad: { title: '100 ± 30 ms round trip, 2 % loss each way', ...both({ delayMs: 35, jitterMs: 30, loss: 0.02 }), joinedSeconds: 6, skewGoalMs: FRAME_MS },
  loss5: { title: '50 ms round trip, 5 % loss each way', ...both({ delayMs: 25, loss: 0.05 }), joinedSeconds: 6, skewGoalMs: FRAME_MS },
  narrow: { title: '1 Mbit/s, 50 ms round trip', ...both({ delayMs: 25, kbit: 1000, queueBytes: 32_000 }), joinedSeconds: 6, skewGoalMs: FRAME_MS },
  asymmetric: { title: '20 ms to the server, 80 ms from it', up: way({ delayMs: 20 }), down: way({ delayMs: 80 }), joinedSeconds: 6, skewGoalMs: FRAME_MS },
};

/**
 * Half of the difference between the ways: no exchange of packets can tell it from an offset.
 * @param {Profile} profile
 */
export function clockBoundMs({ up, down }) {
  const most = (/** @type {Way} */ a, /** @type {Way} */ b) => a.delayMs + a.jitterMs - b.delayMs;
  return Math.max(most(up, down), most(down, up)) / 2;
}

/** @param {string} profile @returns {Run} */
const pairs = (profile) => ({
  name: profile, style: 'mixed', commands: 200, joins: 40, seconds: 900,
  rooms: [{ profile, tabs: 2 }, { profile, tabs: 2 }],
});
/** @param {string} profile @returns {Run} */
const eight = (profile) => ({ name: `eight-${profile}`, style: 'seeks', commands: 100, joins: 0, seconds: 480, rooms: [{ profile, tabs: 8 }] });

/** @type {Run[]} */
const FULL = [
  ...Object.keys(PROFILES).map(pairs),
  eight('clean'),
  eight('bad'),
  { name: 'drift', style: 'drift', commands: 0, joins: 0, seconds: 1800, rooms: [{ profile: 'clean', tabs: 2 }, { profile: 'bad', tabs: 2 }] },
];

/** Short forms, under six minutes together. @type {Run[]} */
const QUICK = [
  { name: 'pairs', style: 'mixed', commands: 60, joins: 6, seconds: 130, rooms: [{ profile: 'clean', tabs: 2 }, { profile: 'bad', tabs: 2 }] },
  { ...eight('clean'), commands: 16, seconds: 50 },
  { ...eight('bad'), commands: 16, seconds: 50 },
];

/**
 * @param {{quick?: boolean, runs?: string[]}} wanted  names of runs; all when absent
 * @returns {Run[]}
 */
export function runsOf({ quick = false, runs = [] }) {
  const all = quick ? QUICK : FULL;
  const unknown = runs.filter((name) => !all.some((run) => run.name === name));
  if (unknown.length) throw new Error(`no run is called ${unknown.join(', ')}; there are ${all.map(({ name }) => name).join(', ')}`);
  return all.filter(({ name }) => runs.length === 0 || runs.includes(name));
}

/** @typedef {{transport: 'webtransport'|'websocket', browser: 'chromium'|'firefox'}} Kind */
/** @type {Kind[]} */
const KINDS = [
  { browser: 'chromium', transport: 'webtransport' },
  { browser: 'firefox', transport: 'websocket' },
  { browser: 'chromium', transport: 'websocket' },
  { browser: 'firefox', transport: 'webtransport' },
];
const CHROMIUMS = KINDS.filter(({ browser }) => browser === 'chromium');

/**
 * Both browsers and both transports in each room; rooms of two begin elsewhere, so that two of them have all four
 * kinds. Above four tabs the rest is Chromium: a Firefox takes about twice the processor time.
 * @param {number} index of the tab in its room
 * @param {number} room
 * @returns {Kind}
 */
export function kindOf(index, room) {
  if (index >= KINDS.length) return CHROMIUMS[index % CHROMIUMS.length];
  return KINDS[(index + room * 2) % KINDS.length];
}

/** Acts of a cycle, and how many of the commands that are measured each makes. */
const ACTS = {
  mixed: ['pause', 'seek', 'join', 'rate', 'seek', 'seekPaused', 'join', 'seek'],
  seeks: ['seek', 'seek', 'pause', 'seek', 'seek', 'rate'],
  drift: [],
};
export const COMMANDS_OF = { pause: 2, seek: 1, rate: 2, seekPaused: 2, join: 0 };

/**
 * The next action of a room, chosen so that all rooms of a profile together reach its numbers.
 * @param {Run} run
 * @param {number} step  of the room
 * @param {{commands: number, joins: number}} done  of the profile
 * @returns {keyof typeof COMMANDS_OF|'nothing'|null} null: nothing is left to do
 */
export function nextAct({ style, commands, joins }, step, done) {
  if (style === 'drift') return 'nothing';
  const cycle = /** @type {(keyof typeof COMMANDS_OF)[]} */ (ACTS[style]);
  const wanted = cycle.filter((act) => (act === 'join' ? done.joins < joins : done.commands < commands));
  return wanted.length ? wanted[step % wanted.length] : null;
}
