#!/usr/bin/env node
/**
 * How far apart are the players? Real Chromium and Firefox, the real page, the real film, each tab behind a lossy line
 * of its own, half of them on WebTransport. docs/SYNC.md says how it is measured. Needs Linux and root (namespaces).
 *
 *   node benches/sync/run.mjs [--quick] [--runs clean,bad] [--seconds 120] [--seed 1]
 *     [--out docs/sync] [--trace target/sync-trace.csv]
 *
 * `--seconds` ends each run sooner. Without `--out` the figures of docs/SYNC.md are written anew too.
 * TANDEM_BIN: the server (target/release/tandem, else target/debug/tandem); LINES_BIN: the bench `loss`, which is built
 * when it is absent; CHROMIUM, FIREFOX: other browsers.
 */
import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, readdirSync, rmSync } from 'node:fs';
import { readFile, writeFile } from 'node:fs/promises';
import { cpus, tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { analyse } from './analyse.js';
import { RoomDirector } from './direct.js';
import { Network, within } from './lines.js';
import { Load } from './load.js';
import { PROFILES, kindOf, runsOf } from './plan.js';
import { drawPlot } from './plot.js';
import { figuresOf, figuresPage } from './report.js';
import { startBrowser } from './tabs.js';
import { traceTable } from './trace.js';

const root = (/** @type {string} */ path) => fileURLToPath(new URL(`../../${path}`, import.meta.url));
const OUT = root('docs/sync');
const PAGE = root('docs/SYNC.md');
const { values: options } = parseArgs({
  options: {
    quick: { type: 'boolean', default: false },
    runs: { type: 'string', default: '' },
    seconds: { type: 'string', default: '' },
    seed: { type: 'string', default: '1' },
    out: { type: 'string', default: OUT },
    trace: { type: 'string', default: root('target/sync-trace.csv') },
  },
});
const SEED = Number(options.seed);
const PROBE = readFileSync(new URL('./probe.js', import.meta.url), 'utf8');
/** For opening, closing, and what waits for a bad line. */
const BESIDES_MS = 300_000;
const SERVER = process.env.TANDEM_BIN ?? ['target/release/tandem', 'target/debug/tandem'].map(root).find(existsSync);
if (!SERVER) throw new Error('no server: cargo build --release --bin tandem (or set TANDEM_BIN)');

const stop = new AbortController();
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP']) process.on(signal, () => stop.abort(new Error(`ended by ${signal}`)));
const stopped = new Promise((_, reject) => stop.signal.addEventListener('abort', () => reject(stop.signal.reason)));
stopped.catch(() => {});

/** Everything that browsers and the server write goes below it, so that nothing is left behind. */
const HOME = 'tandem-sync-';
sweepHomes();
const home = mkdtempSync(join(tmpdir(), `${HOME}${process.pid}-`));
process.env.TMPDIR = home;

/** @type {any[]} */
const measured = [];
/** @type {Set<string>} */
const browsers = new Set();
const lines = process.env.LINES_BIN ?? builtLines();
try {
  for (const planned of runsOf({ quick: options.quick, runs: options.runs ? options.runs.split(',') : [] })) {
    const run = { ...planned, seconds: Math.min(planned.seconds, Number(options.seconds) || Infinity) };
    process.stderr.write(`${run.name} …\n`);
    measured.push(await measure(run));
    await write();
  }
  process.stdout.write(`${figuresPage(report())}\n`);
} catch (error) {
  process.stderr.write(`sync: ${stop.signal.aborted ? error.message : error.stack}\n`);
  process.exitCode = 1;
} finally {
  rmSync(home, { recursive: true, force: true, maxRetries: 5, retryDelay: 200 });
}
// A browser that was given up may have left a handle open.
process.exit();

/** Folders of processes that are gone: killed before they could clean up. */
function sweepHomes() {
  for (const name of readdirSync(tmpdir())) {
    const pid = name.startsWith(HOME) ? /^\d+(?=-)/.exec(name.slice(HOME.length))?.[0] : undefined;
    if (pid && !existsSync(`/proc/${pid}`)) rmSync(join(tmpdir(), name), { recursive: true, force: true });
  }
}

/** @param {import('./plan.js').Run} run */
async function measure(run) {
  const began = performance.now();
  const seats = run.rooms.flatMap(({ profile, tabs }, room) => Array.from({ length: tabs }, (_, index) => ({ profile, room, kind: kindOf(index, room) })));
  const network = await Network.lay(lines, seats.map(({ profile }) => PROFILES[profile]), SEED);
  /** @type {import('./tabs.js').Seat[]} */
  const opened = [];
  /** @type {Load|undefined} */
  let load;
  try {
    const whole = async () => {
      await network.serve(SERVER);
      for (const [index, { kind }] of seats.entries()) opened.push(await startBrowser(kind.browser, network.far[index].namespace, PROBE));
      opened.forEach(({ version }) => browsers.add(version));
      /** @type {Record<string, {commands: number, joins: number}>} */
      const done = {};
      const rooms = run.rooms.map(({ profile }, room) => ({
        profile,
        director: new RoomDirector({
          seats: seats.map(({ kind, room: of }, index) => ({ of, kind, seat: opened[index] })).filter(({ of }) => of === room),
          origin: network.origin, name: `${run.name}-${room + 1}`, run, profile, plan: PROFILES[profile], seed: SEED + room,
          done: (done[profile] ??= { commands: 0, joins: 0 }),
        }),
      }));
      await Promise.all(rooms.map(({ director }) => director.gather()));
      load = new Load();
      const until = performance.now() + run.seconds * 1000;
      const telling = setInterval(() => process.stderr.write(`\r${run.name}: ${Math.round((performance.now() - began) / 1000)} s, ${JSON.stringify(done)}   `), 2000);
      try {
        await Promise.all(rooms.map(({ director }) => director.play({ until, signal: stop.signal })));
        await pause(1000);
      } finally {
        clearInterval(telling);
        process.stderr.write('\n');
      }
      const end = Date.now();
      const busy = load.stop();
      const packets = await network.packets();
      await Promise.all(rooms.map(({ director }) => director.disband()));
      return { rooms, end, busy, packets };
    };
    const limit = run.seconds * 1000 + BESIDES_MS;
    const { rooms, end, busy, packets } = await Promise.race([within(whole(), limit, run.name), /** @type {Promise<never>} */ (stopped)]);
    const { pressure } = /** @type {Load} */ (load);
    const results = rooms.map(({ profile, director: { records } }, room) => ({
      profile, records, tabs: run.rooms[room].tabs,
      packets: packets.filter((/** @type {any} */ _, /** @type {number} */ index) => seats[index].room === room),
      result: analyse(records, { until: end, pressure }),
    }));
    const profiles = [...new Set(results.map(({ profile }) => profile))];
    return {
      name: run.name, style: run.style, seconds: Math.round((performance.now() - began) / 1000), load: busy,
      profiles: Object.fromEntries(profiles.map((profile) => [profile, figuresOf(profile, results.filter((each) => each.profile === profile), run.style)])),
      commands: results.flatMap(({ result }) => result.commands),
    };
  } finally {
    load?.stop();
    await Promise.allSettled(opened.map((seat) => seat.close()));
    await network.close();
  }
}

function report() {
  return {
    when: new Date().toISOString(),
    setup: {
      seed: SEED, quick: options.quick, server: `${/** @type {string} */ (SERVER).split('/').slice(-2).join('/')}`, browsers: [...browsers], cpus: cpus().length, cpu: cpus()[0]?.model,
      film: '640×360 VP9, 25 frames a second, decoded in software', lines: PROFILES,
    },
    runs: measured.map(({ commands, ...run }) => run),
  };
}

/** After each run: what an hour has measured must not hang on the next one. */
async function write() {
  mkdirSync(dirname(options.out), { recursive: true });
  mkdirSync(dirname(options.trace), { recursive: true });
  await writeFile(`${options.out}.json`, `${JSON.stringify(report(), null, 1)}\n`);
  await writeFile(`${options.out}.svg`, drawPlot(report()));
  // The page's figures are always those of the JSON beside it.
  if (options.out === OUT) {
    const page = await readFile(PAGE, 'utf8');
    await writeFile(PAGE, page.replace(/(<!-- figures -->\n)[^]*(<!-- \/figures -->)/, (_, open, close) => `${open}${figuresPage(report())}${close}`));
  }
  await writeFile(options.trace, traceTable(measured));
}

/** Cargo knows where it puts a bench. An unoptimised one is good enough for some hundred packets a second. */
function builtLines() {
  const told = execFileSync('cargo', ['build', '--bench', 'loss', '--message-format', 'json'], { cwd: root('.'), encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], maxBuffer: 1 << 28 });
  const artifacts = told.trim().split('\n').map((line) => JSON.parse(line)).filter(({ reason, target, executable }) => reason === 'compiler-artifact' && target.name === 'loss' && executable);
  return artifacts.at(-1).executable;
}
