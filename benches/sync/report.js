/** From readings to figures, judged by the goals; as JSON and as tables. Pure. */
import { JOINER_AFTER_S } from './analyse.js';
import { PROFILES, clockBoundMs } from './plan.js';
import { figure, median, quantile, round } from './statistics.js';
import { CAUSES } from './trace.js';

const DRIFT_GOAL_MS = 20;
const SEEK_SPREAD_GOAL_MS = 60;
/** Error of the true offset as it is read here: Firefox rounds both of its clocks to whole ms, at random up or down. */
const CLOCK_READING_MS = 3;

const PARTS = {
  all: () => true,
  webtransport: (/** @type {any} */ { transport }) => transport === 'webtransport',
  websocket: (/** @type {any} */ { transport }) => transport === 'websocket',
  chromium: (/** @type {any} */ { browser }) => browser === 'chromium',
  firefox: (/** @type {any} */ { browser }) => browser === 'firefox',
};

/** @param {any[]} readings @param {any} [more]  further parts */
const figures = (readings, more = {}) => Object.fromEntries(
  Object.entries({ ...PARTS, ...more }).map(([name, of]) => [name, figure(readings.filter(of))]).filter(([name, { n }]) => n > 0 || name === 'all'),
);

/**
 * @param {string} profile
 * @param {any[]} rooms  results of `analyse` and the records, of this profile
 * @param {string} style
 */
export function figuresOf(profile, rooms, style) {
  const commands = rooms.flatMap(({ result }) => result.commands);
  const records = rooms.flatMap(({ records: each }) => each);
  const clusterOf = (/** @type {any} */ { room, seq }) => `${room}/${seq}`;
  const skewsOf = (/** @type {any[]} */ list) => list.flatMap((command) => command.skews.map((/** @type {any} */ each) => ({ ...each, value: each.skew, cluster: clusterOf(command) })));
  const spreadsOf = (/** @type {any[]} */ list) => figure(list.map((command) => ({ value: command.spread, cluster: clusterOf(command) })));
  const skews = skewsOf(commands);
  const kinds = ['play', 'seek', 'rate', 'pause'].map((kind) => {
    const of = commands.filter((command) => command.kind === kind);
    return [kind, { commands: of.length, skewMs: figure(skewsOf(of)), spreadMs: spreadsOf(of) }];
  });
  const starts = skews.filter(({ causes }) => causes);
  const slowFrom = quantile(starts.map(({ value }) => Math.abs(value)).sort((a, b) => a - b), 0.95) ?? Infinity;
  const isSlow = (/** @type {any} */ { value }) => Math.abs(value) >= slowFrom;
  const causesOf = (/** @type {any[]} */ list) => Object.fromEntries(CAUSES.map((cause) => [cause, round(list.length ? list.reduce((sum, each) => sum + each.causes[cause], 0) / list.length : null)]));
  const gaps = (/** @type {(skew: any, command: any) => number|null} */ of) => {
    const values = commands.flatMap((command) => command.skews.map((/** @type {any} */ skew) => ({ value: of(skew, command), cluster: clusterOf(command) })));
    return figure(values.filter(({ value }) => value !== null));
  };
  const joiners = rooms.flatMap(({ result }) => result.joiners);
  const joinersAfter = (/** @type {number} */ seconds, /** @type {'frame'|'clock'} */ by) => figures(
    joiners.filter(({ after }) => after[seconds]).map(({ after, ...rest }) => ({ ...rest, value: after[seconds][by] })),
  );
  const clock = rooms.flatMap(({ result }) => result.clock);
  const codes = records.flatMap(({ codes: each }) => each);
  const sum = (/** @type {(record: any) => number} */ of) => records.reduce((total, record) => total + of(record), 0);
  const all = {
    line: PROFILES[profile].title,
    tabs: rooms.map(({ tabs }) => tabs),
    commands: commands.length,
    lateJoiners: joiners.length,
    commandSkewMs: figures(skews, { calm: (/** @type {any} */ { calm }) => calm }),
    calmShare: skews.length ? round(skews.filter(({ calm }) => calm).length / skews.length) : null,
    commandSpreadMs: spreadsOf(commands),
    byCommand: Object.fromEntries(kinds),
    // Apart, because one start that failed would outweigh a hundred.
    startCausesMs: { mean: causesOf(starts.filter((each) => !isSlow(each))), meanOfSlowest5Percent: causesOf(starts.filter(isSlow)), medianSize: Object.fromEntries(CAUSES.map((cause) => [cause, round(median(starts.map((each) => Math.abs(each.causes[cause]))))])) },
    sentToCommittedMs: figure(commands.filter(({ kind, sent, committed }) => kind !== 'seek' && sent !== null && committed !== null).map((command) => ({ value: command.committed - command.sent, cluster: clusterOf(command) }))),
    committedToHeardMs: gaps((skew, { committed }) => (committed === null || skew.heard === null ? null : skew.heard - committed)),
    heardAheadMs: gaps((skew, { at }) => (skew.heard === null ? null : at - skew.heard)),
    seekUntilStartMs: figure(commands.filter(({ gateMs }) => gateMs !== null).map((command) => ({ value: command.gateMs, cluster: clusterOf(command) }))),
    steadyDriftMs: figures(rooms.flatMap(({ result }) => result.steady)),
    steadyPlayerClockMs: figures(rooms.flatMap(({ result }) => result.player)),
    lateJoinerMs: Object.fromEntries(JOINER_AFTER_S.map((seconds) => [`after${seconds}s`, joinersAfter(seconds, 'frame')])),
    lateJoinerPlayerClockMs: Object.fromEntries(JOINER_AFTER_S.map((seconds) => [`after${seconds}s`, joinersAfter(seconds, 'clock')])),
    clockErrorMs: figures(clock),
    clockErrorBeyondOwnBound: clock.filter(({ value, bound }) => Math.abs(value) > bound + CLOCK_READING_MS).length,
    frameCodes: { read: codes.length, wrong: codes.filter(([mediaTime, frame]) => Math.abs(mediaTime * 25 - frame) > 1.01).length },
    player: {
      timerLatenessMs: figure(records.flatMap(({ name, late }) => late.map((/** @type {number} */ value) => ({ value, cluster: name })))),
      droppedFrames: sum(({ droppedVideoFrames }) => droppedVideoFrames),
      frames: sum(({ totalVideoFrames }) => totalVideoFrames),
      jumps: sum(({ stats }) => stats.jumps),
      wallOffsetChangeMs: figure(records.map(({ name, offsets: [first, last] }) => ({ value: last - first, cluster: name }))),
    },
    packets: rooms.map(({ packets }) => packets),
  };
  return { ...all, goals: goalsOf(profile, all, style) };
}

/** Reached when the whole interval is below; missed when all of it is above; else a longer run has to tell. */
function verdict(/** @type {import('./statistics.js').Figure} */ { p95, p95Range }, /** @type {number} */ goal) {
  if (p95 === null) return 'not measured';
  if (!p95Range) return p95 <= goal ? 'reached (few readings)' : 'missed (few readings)';
  if (p95Range[1] <= goal) return 'reached';
  return p95Range[0] > goal ? 'missed' : p95 <= goal ? 'reached, not surely' : 'missed, not surely';
}

function goalsOf(/** @type {string} */ name, /** @type {any} */ all, /** @type {string} */ style) {
  const profile = PROFILES[name];
  const { joinedSeconds } = profile;
  const goal = (/** @type {string} */ what, /** @type {import('./statistics.js').Figure} */ found, /** @type {number} */ most) => ({ what, goalMs: most, p95: found.p95, p95Range: found.p95Range, n: found.n, clusters: found.clusters, verdict: verdict(found, most) });
  const goals = [goal('steady drift of the frame on the screen', all.steadyDriftMs.all, DRIFT_GOAL_MS)];
  if (style === 'mixed') {
    goals.unshift(goal('command skew', all.commandSkewMs.all, profile.skewGoalMs));
    goals.push(goal(`late joiner after ${joinedSeconds} s`, all.lateJoinerMs[`after${joinedSeconds}s`].all, DRIFT_GOAL_MS));
  }
  if (style === 'seeks') goals.unshift(goal('seek, first tab to last', all.byCommand.seek.spreadMs, SEEK_SPREAD_GOAL_MS));
  // With jitter a single exchange may be that much off one way; the best of sixteen is less.
  goals.push(goal('clock error (half the asymmetry, and the reading)', all.clockErrorMs.all, clockBoundMs(profile) + CLOCK_READING_MS));
  return goals;
}

const short = (/** @type {number|null} */ value) => (value === null || value === undefined ? '–' : value.toFixed(1));
const ranged = (/** @type {any} */ found) => (found?.n ? `${short(found.p50)} / **${short(found.p95)}**${found.p95Range ? ` [${found.p95Range.map(short).join('–')}]` : ''} / ${short(found.max)}` : '–');

/** Markdown, for docs/SYNC.md and for the terminal. @param {any} report */
export function figuresPage({ when, setup, runs }) {
  const busiest = Math.max(...runs.map((/** @type {any} */ { load }) => load.cpuBusyPercent - load.ownCpuPercent));
  const beside = busiest > 10 ? `**other programs took up to ${busiest} % of the machine: the figures are upper limits**` : 'nothing else running';
  return `Run of ${when.slice(0, 16).replace('T', ' ')} UTC${setup.quick ? ' (`--quick`)' : ''}: ${setup.cpu}, ${setup.cpus} cores, ${setup.browsers.join(', ')}, server \`${setup.server}\`, seed ${setup.seed}; ${beside}.\n\n${tables(runs)}\n`;
}

/** @param {any[]} runs */
function tables(runs) {
  const rows = runs.flatMap((/** @type {any} */ { name, profiles }) => Object.entries(profiles).map(([profile, found]) => ({ name: Object.keys(profiles).length > 1 ? `${name}: ${profile}` : name, profile, found: /** @type {any} */ (found) })));
  const table = (/** @type {string[]} */ head, /** @type {(row: any) => any[]} */ cells, list = rows) => [
    `| ${head.join(' | ')} |`, `|${head.map(() => '---').join('|')}|`, ...list.map((row) => `| ${cells(row).join(' | ')} |`),
  ].join('\n');
  const later = (/** @type {any} */ { profile, found }) => found.lateJoinerMs[`after${PROFILES[profile].joinedSeconds}s`];
  const causes = (/** @type {any} */ part) => CAUSES.map((cause) => short(part[cause]));
  return [
    'Goals:\n', table(['run', 'goal', 'p95', '95 % confidence', 'at most', 'verdict'], (goal) => [goal.run, goal.what, short(goal.p95), goal.p95Range?.map(short).join('–') ?? '–', short(goal.goalMs), goal.verdict],
      rows.flatMap(({ name, found }) => found.goals.map((/** @type {any} */ goal) => ({ run: name, ...goal })))),
    '\nms, p50 / **p95** [95 % confidence of p95] / max:\n',
    table(['run', 'commands', 'skew', 'skew, calm moments', 'first to last tab', 'steady drift, frames', 'steady drift, player’s clock', 'late joiners', 'late joiner', 'clock error'], ({ name, found, profile }) => [
      name, found.commands, ranged(found.commandSkewMs.all), `${ranged(found.commandSkewMs.calm)} (${Math.round((found.calmShare ?? 0) * 100)} %)`, ranged(found.commandSpreadMs), ranged(found.steadyDriftMs.all), ranged(found.steadyPlayerClockMs.all),
      later({ profile, found }).all.n, ranged(later({ profile, found }).all), ranged(found.clockErrorMs.all),
    ]),
    '\nskew by kind of tab:\n',
    table(['run', 'WebTransport', 'WebSocket', 'Chromium', 'Firefox'], ({ name, found }) => [name, ...['webtransport', 'websocket', 'chromium', 'firefox'].map((part) => ranged(found.commandSkewMs[part]))]),
    '\nskew by command, and for a seek first to last tab:\n',
    table(['run', 'play', 'seek', 'rate', 'pause', 'seek, first to last', 'from asking for a seek to its start'], ({ name, found }) => [name, ...['play', 'seek', 'rate', 'pause'].map((kind) => ranged(found.byCommand[kind].skewMs)), ranged(found.byCommand.seek.spreadMs), ranged(found.seekUntilStartMs)]),
    '\nsteps of a command:\n',
    table(['run', 'sent → committed', 'committed → heard', 'heard ahead of its moment'], ({ name, found }) => [name, ranged(found.sentToCommittedMs), ranged(found.committedToHeardMs), ranged(found.heardAheadMs)]),
    '\na start’s lateness by cause: mean of all but the slowest 5 % (mean of those):\n',
    table(['run', ...CAUSES], ({ name, found }) => {
      const [mean, slowest] = [causes(found.startCausesMs.mean), causes(found.startCausesMs.meanOfSlowest5Percent)];
      return [name, ...mean.map((value, index) => `${value} (${slowest[index]})`)];
    }),
    '\nthe machine:\n',
    table(['run', 'busy', 'by this bench', 'tasks waiting', 'page timers late', 'frames dropped', 'jumps'], ({ found, run }) => [
      run.name, `${run.load.cpuBusyPercent} %`, `${run.load.ownCpuPercent} %`, `${run.load.pressurePercent} % of the time`, ranged(found.player.timerLatenessMs), `${found.player.droppedFrames} of ${found.player.frames}`, found.player.jumps,
    ], runs.flatMap((/** @type {any} */ run) => Object.values(run.profiles).map((found) => ({ run, found })))),
  ].join('\n');
}
