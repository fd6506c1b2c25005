#!/usr/bin/env node
/**
 * How far apart are the players? Real Chromium tabs, the real page, the real film; half of them on WebTransport, half
 * on WebSocket. docs/SYNC.md says how it is measured.
 *
 *   node benches/sync/run.mjs [--seconds 120] [--tabs 4] [--seed 1] [--out docs/sync]
 *
 * --tabs: for each transport. TANDEM_BIN: the server (target/release/tandem, else target/debug/tandem).
 */
import { existsSync, readFileSync, readdirSync } from 'node:fs';
import { writeFile } from 'node:fs/promises';
import { cpus } from 'node:os';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { Server } from '../../web-demo/e2e/support/server.js';
import { chromium } from '../../web-demo/node_modules/playwright-core/index.mjs';
import { analyse, byTransport, summary } from './analyse.js';
import { drawPlot } from './plot.js';

const { values: options } = parseArgs({
  options: {
    seconds: { type: 'string', default: '120' },
    tabs: { type: 'string', default: '4' },
    seed: { type: 'string', default: '1' },
    out: { type: 'string', default: fileURLToPath(new URL('../../docs/sync', import.meta.url)) },
  },
});
const SECONDS = Number(options.seconds);
const TABS = Number(options.tabs);
const CHROMIUM = process.env.CHROMIUM ?? '/usr/bin/chromium';
const FLAGS = [
  '--no-sandbox', '--disable-gpu', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync',
  '--autoplay-policy=no-user-gesture-required', '--mute-audio',
];
const PROBE = readFileSync(new URL('./probe.js', import.meta.url), 'utf8');

const release = fileURLToPath(new URL('../../target/release/tandem', import.meta.url));
process.env.TANDEM_BIN ??= existsSync(release) ? release : undefined;
if (process.env.TANDEM_BIN === 'undefined') delete process.env.TANDEM_BIN;

const random = mulberry32(Number(options.seed));
const between = (low, high) => low + random() * (high - low);
const oneOf = (list) => list[Math.floor(random() * list.length)];

const server = new Server({ LOG_LEVEL: 'warn' });
const browser = await chromium.launch({ executablePath: CHROMIUM, args: FLAGS });
const ROOM = 'sync-bench';
/** All that were ever open, with what they recorded. */
const records = [];
let joins = 0;

try {
  await server.start();
  let tabs = [];
  for (let index = 0; index < TABS * 2; index++) tabs.push(await openTab(index % 2 ? 'websocket' : 'webtransport'));
  const host = tabs[0];
  await host.page.evaluate(() => window.tandem.room.setGuestControl(true));
  const duration = await host.page.evaluate(() => document.querySelector('#video').duration);
  const began = performance.now();
  const load = new Load();
  const left = () => SECONDS * 1000 - (performance.now() - began);

  const say = (tab, act, ...args) => tab.page.evaluate(([name, list]) => window.tandem.room[name](...list), [act, args]);
  await say(host, 'play');
  await pause(5000);
  let acts = 0;
  while (left() > 9000) {
    const by = oneOf(tabs);
    const act = ['pause', 'seek', 'join', 'pause', 'seek', 'rate', 'seekPaused', 'join'][acts++ % 8];
    if (act === 'pause') {
      await say(by, 'pause');
      await pause(between(1200, 2200));
      await say(oneOf(tabs), 'play');
    } else if (act === 'seek') {
      await say(by, 'seek', between(5, duration - 60));
    } else if (act === 'seekPaused') {
      await say(by, 'pause');
      await pause(between(600, 1200));
      await say(by, 'seek', between(5, duration - 60), { playing: false });
      await pause(between(1200, 2200));
      await say(oneOf(tabs), 'play');
    } else if (act === 'rate') {
      await say(by, 'setRate', 1.25);
      await pause(between(3000, 4000));
      await say(by, 'setRate', 1);
    } else {
      // Somebody leaves (never the host), and comes back a little later as a newcomer.
      const leaver = oneOf(tabs.slice(1));
      tabs = tabs.filter((tab) => tab !== leaver);
      await closeTab(leaver);
      await pause(between(500, 1500));
      tabs.push(await openTab(leaver.transport, true));
      await pause(2000);
    }
    process.stderr.write(`\r${Math.round((SECONDS * 1000 - left()) / 1000)} s, ${act}        `);
    await pause(between(3500, 5000));
  }
  await pause(Math.max(0, left()));
  const until = Date.now();
  const busy = load.stop();
  for (const tab of tabs) await closeTab(tab);
  process.stderr.write('\n');

  const result = analyse(records, { until });
  const report = summarise(result, busy, until);
  await writeFile(`${options.out}.json`, `${JSON.stringify(report, null, 1)}\n`);
  await drawPlot(browser, { result, report, from: records[0].joined }, `${options.out}.png`);
  if (process.env.SYNC_RAW) await writeFile(process.env.SYNC_RAW, JSON.stringify(records));
  print(report);
} finally {
  await browser.close();
  await server.remove();
}

async function openTab(transport, late = false) {
  const context = await browser.newContext({ viewport: { width: 480, height: 420 } });
  const page = await context.newPage();
  page.on('pageerror', (error) => console.error(`\n${error}`));
  await page.addInitScript(PROBE);
  joins += 1;
  const name = `${transport === 'webtransport' ? 'wt' : 'ws'}${joins}`;
  await page.goto(`${server.origin}/#room=${ROOM}&name=${name}&transport=${transport}&autojoin=1`);
  await page.waitForFunction(() => window.tandem?.room.state === 'joined');
  await page.evaluate((options) => window.tandemProbe(options), { readFrames: true });
  if (!late) await page.waitForFunction(() => document.querySelector('#video').readyState >= 3);
  return { page, context, transport, name, late };
}

async function closeTab({ page, context, name, late }) {
  const record = await page.evaluate(() => window.tandemRecord());
  records.push({ name, late_joiner: late, ...record });
  // By the button: the next one is a newcomer.
  await page.evaluate(() => window.tandem.room.leave());
  await context.close();
}

function summarise({ commands, steady, player, joiners, clock }, busy, until) {
  const skews = commands.flatMap(({ skews: each }) => each);
  const kinds = Object.fromEntries(['play', 'pause', 'seek', 'rate'].map((kind) => {
    const of = commands.filter((command) => command.kind === kind);
    return [kind, { commands: of.length, skew: summary(of.flatMap(({ skews: each }) => each.map(({ effect }) => effect))), spread: summary(of.map(({ spread }) => spread)) }];
  }));
  const codes = records.flatMap(({ codes: each }) => each);
  return {
    when: new Date(until).toISOString(),
    setup: {
      seconds: SECONDS, tabsPerTransport: TABS, seed: Number(options.seed), server: (process.env.TANDEM_BIN ?? 'target/debug/tandem').split('/').slice(-2).join('/'),
      browser: browser.version(), cpus: cpus().length, cpu: cpus()[0]?.model,
      film: '640×360 VP9, 25 frames a second, decoded in software',
    },
    clockErrorMs: byTransport(clock),
    commandSkewMs: byTransport(skews, ({ effect }) => effect),
    commandSpreadMs: summary(commands.map(({ spread }) => spread)),
    heardAheadMs: summary(commands.map(({ heardAhead }) => heardAhead)),
    byCommand: kinds,
    steadyDriftMs: byTransport(steady),
    steadyPlayerClockMs: byTransport(player),
    lateJoinerMs: byTransport(joiners),
    lateJoinerPlayerClockMs: byTransport(joiners, ({ player: value }) => value),
    frameCodes: { read: codes.length, wrong: codes.filter(([mediaTime, frame]) => Math.abs(mediaTime * 25 - frame) > 1.01).length },
    load: {
      cpuBusyPercent: busy.busy, ownCpuPercent: busy.own,
      timerLatenessMs: summary(records.flatMap(({ late }) => late)),
      droppedFrames: records.reduce((sum, { droppedVideoFrames }) => sum + droppedVideoFrames, 0),
      frames: records.reduce((sum, { totalVideoFrames }) => sum + totalVideoFrames, 0),
      jumps: records.reduce((sum, { stats }) => sum + stats.jumps, 0),
      wallOffsetChangeMs: summary(records.map(({ offsets: [first, last] }) => last - first)),
    },
  };
}

function print(report) {
  const row = (name, { n, p50, p95, max, signedMedian }) => ({ what: name, n, p50, p95, max, 'signed median': signedMedian });
  const rows = [];
  for (const [name, key] of [['clock error', 'clockErrorMs'], ['command skew', 'commandSkewMs'], ['steady drift (frames)', 'steadyDriftMs'], ['steady drift (player clock)', 'steadyPlayerClockMs'], ['late joiner after 3 s', 'lateJoinerMs']]) {
    for (const kind of ['webtransport', 'websocket', 'all']) rows.push(row(`${name}, ${kind}`, report[key][kind]));
  }
  rows.push(row('spread of a command', report.commandSpreadMs));
  for (const [kind, { skew, spread }] of Object.entries(report.byCommand)) {
    rows.push(row(`skew of ${kind}`, skew), row(`spread of ${kind}`, spread));
  }
  console.table(rows);
  console.log(JSON.stringify({ load: report.load, frameCodes: report.frameCodes, heardAhead: report.heardAheadMs }));
}

/** How busy the machine was, as a whole and with what this bench started (browser, server). Of all its cores. */
function Load() {
  const read = () => {
    const [user, nice, system, idle, wait, irq, softirq] = readFileSync('/proc/stat', 'utf8').split('\n')[0].trim().split(/\s+/).slice(1).map(Number);
    return { busy: user + nice + system + irq + softirq, idle: idle + wait, own: ownTicks() };
  };
  const before = read();
  this.stop = () => {
    const after = read();
    const all = after.busy - before.busy + after.idle - before.idle;
    const percent = (ticks) => Math.round((100 * ticks) / all);
    return { busy: percent(after.busy - before.busy), own: percent(after.own - before.own) };
  };
}

/** Processor time of this process and all below it, those included that have ended and were waited for. */
function ownTicks() {
  const children = new Map();
  const ticks = new Map();
  for (const pid of readdirSync('/proc').filter((name) => /^\d+$/.test(name))) {
    try {
      const fields = readFileSync(`/proc/${pid}/stat`, 'utf8').replace(/^.*\) /s, '').split(' ').map(Number);
      children.set(fields[1], [...(children.get(fields[1]) ?? []), Number(pid)]);
      ticks.set(Number(pid), fields[11] + fields[12] + fields[13] + fields[14]);
    } catch {
      // It ended while we looked.
    }
  }
  const sum = (pid) => (ticks.get(pid) ?? 0) + (children.get(pid) ?? []).reduce((total, child) => total + sum(child), 0);
  return sum(process.pid);
}

function mulberry32(seed) {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
