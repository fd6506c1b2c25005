/** The figures as one SVG: readable on a light page and on a dark one, small enough to be read as text. Pure. */
import { PROFILES } from './plan.js';
import { CAUSES } from './trace.js';

const WIDTH = 860;
const NAMES = 150;
const RIGHT = WIDTH - 20;
const ROW = 26;
const COLOURS = ['#3b7ddd', '#e07b22', '#2a9d63', '#c23b6f', '#7a55c7', '#6b7785'];

/** @param {any} report */
export function drawPlot({ runs, when, setup }) {
  const rows = runs.flatMap((/** @type {any} */ { name, profiles }) => Object.entries(profiles).map(([profile, found]) => ({ name: Object.keys(profiles).length > 1 ? `${name}: ${profile}` : name, profile, found: /** @type {any} */ (found) })));
  const later = (/** @type {any} */ { profile, found }) => found.lateJoinerMs[`after${PROFILES[profile].joinedSeconds}s`].all;
  const panels = [
    forest('Command skew, ms: p50, p95 with its 95 % confidence (dashed: the goal); below it those of calm moments', rows.filter(({ found }) => found.commands), [
      ({ found }) => found.commandSkewMs.all, ({ found }) => found.commandSkewMs.calm,
    ], ({ profile }) => PROFILES[profile].skewGoalMs),
    forest('Steady drift, ms: the frame on the screen; below it the player’s own clock', rows, [({ found }) => found.steadyDriftMs.all, ({ found }) => found.steadyPlayerClockMs.all], () => 20),
    forest('Late joiner, ms, 3 s after joining (clean) or 6 s (the others)', rows.filter((row) => later(row).n), [later], () => 20),
    causes(rows.filter(({ found }) => found.startCausesMs.mean.pipeline !== null)),
  ].filter(Boolean);
  let top = 62;
  const placed = panels.map((panel) => {
    const svg = `<g transform="translate(0 ${top})">${panel.svg}</g>`;
    top += panel.height + 22;
    return svg;
  });
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${top}" width="${WIDTH}" height="${top}" role="img">
<title>How far apart are the players?</title>
<style>text{font:13px system-ui,sans-serif;fill:#6b7785}.title{font-size:17px;font-weight:600}.head{font-weight:600}.grid{stroke:#8a94a033}.goal{stroke:#c23b6f;stroke-width:2;stroke-dasharray:4 3}</style>
<text class="title" x="16" y="26">How far apart are the players?</text>
<text x="16" y="46">${escape(`${when.slice(0, 16).replace('T', ' ')} UTC, ${setup.cpus} cores, seed ${setup.seed}, ${setup.server}${setup.quick ? ', short runs' : ''}`)}</text>
${placed.join('\n')}
</svg>
`;
}

/**
 * A row of points and intervals for each run.
 * @param {string} title
 * @param {any[]} rows
 * @param {((row: any) => any)[]} series
 * @param {(row: any) => number} goal
 */
function forest(title, rows, series, goal) {
  if (rows.length === 0) return null;
  const largest = Math.max(...rows.flatMap((row) => [goal(row) * 1.1, ...series.map((of) => of(row)?.p95Range?.[1] ?? of(row)?.p95 ?? 0)]));
  // One bad run must not flatten all others: what is beyond is drawn at the edge, with its number.
  const reach = Math.min(largest * 1.05, 400);
  const x = (/** @type {number} */ value) => NAMES + (Math.min(value, reach) / reach) * (RIGHT - 60 - NAMES);
  const height = 44 + rows.length * ROW;
  const marks = ticks(reach).map((value) => `<path class="grid" d="M${f(x(value))} 34V${height - 4}"/><text text-anchor="middle" x="${f(x(value))}" y="30">${value}</text>`);
  const lines = rows.flatMap((row, index) => {
    const y = 50 + index * ROW;
    return [
      `<text text-anchor="end" x="${NAMES - 10}" y="${y + 4}">${escape(row.name)}</text>`,
      `<path class="goal" d="M${f(x(goal(row)))} ${y - 10}v20"/>`,
      ...series.map((of, number) => whisker(of(row), x, y - 5 * (series.length - 1) + number * 10, COLOURS[number], reach)),
    ];
  });
  return { height, svg: `<text class="head" x="16" y="12">${escape(title)}</text>${marks.join('')}${lines.join('\n')}` };
}

function whisker(/** @type {any} */ found, /** @type {(value: number) => number} */ x, /** @type {number} */ y, /** @type {string} */ colour, /** @type {number} */ reach) {
  if (!found?.n) return '';
  const range = found.p95Range ? `<path stroke="${colour}" stroke-width="2.5" d="M${f(x(found.p95Range[0]))} ${y}H${f(x(found.p95Range[1]))}"/>` : '';
  const beyond = found.p95 > reach ? ' (beyond)' : '';
  return `<circle fill="none" stroke="${colour}" stroke-width="1.5" r="3" cx="${f(x(found.p50))}" cy="${y}"/>${range}<circle fill="${colour}" r="4" cx="${f(x(found.p95))}" cy="${y}"/><text font-size="11" x="${RIGHT - 50}" y="${y + 4}">${found.p95.toFixed(1)}${beyond}</text>`;
}

/** Causes of the mean start's lateness, as stacked bars of their sizes; what makes a start early points left. */
function causes(/** @type {any[]} */ rows) {
  if (rows.length === 0) return null;
  const means = rows.map(({ found }) => found.startCausesMs.mean);
  const side = (/** @type {any} */ mean, /** @type {number} */ sign) => CAUSES.reduce((sum, cause) => sum + Math.max(0, sign * mean[cause]), 0);
  const [left, right] = [-1, 1].map((sign) => Math.max(1, ...means.map((mean) => side(mean, sign))));
  const x = (/** @type {number} */ value) => NAMES + ((value + left) / (left + right)) * (RIGHT - NAMES);
  const height = 66 + rows.length * ROW;
  const legend = CAUSES.map((cause, index) => `<rect fill="${COLOURS[index]}" x="${NAMES + index * 100}" y="20" width="12" height="8"/><text x="${NAMES + 17 + index * 100}" y="28">${cause}</text>`);
  const marks = ticks(right).map((value) => `<path class="grid" d="M${f(x(value))} 52V${height - 4}"/><text text-anchor="middle" x="${f(x(value))}" y="48">${value}</text>`);
  const bars = rows.map(({ name }, index) => {
    const y = 58 + index * ROW;
    const ends = { left: 0, right: 0 };
    const parts = CAUSES.map((cause, number) => {
      const value = means[index][cause];
      const [from, to] = value < 0 ? [ends.left + value, ends.left] : [ends.right, ends.right + value];
      if (value < 0) ends.left += value;
      else ends.right += value;
      return `<rect fill="${COLOURS[number]}" x="${f(x(from))}" y="${y}" width="${f(x(to) - x(from))}" height="16"/>`;
    });
    return `<text text-anchor="end" x="${NAMES - 10}" y="${y + 12}">${escape(name)}</text>${parts.join('')}`;
  });
  return { height, svg: `<text class="head" x="16" y="12">Why a start is late, ms: mean parts of all but the slowest 5 % (left of 0: what makes it early)</text>${legend.join('')}${marks.join('')}${bars.join('\n')}` };
}

function ticks(/** @type {number} */ reach) {
  const rough = reach / 6;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough) ?? power;
  return Array.from({ length: Math.floor(reach / step) + 1 }, (_, index) => Math.round(index * step * 100) / 100);
}

const f = (/** @type {number} */ value) => value.toFixed(1);
const escape = (/** @type {string} */ words) => words.replaceAll('&', '&amp;').replaceAll('<', '&lt;');
