/** The ruler's arithmetic (benches/sync): quantiles, their confidence, readings and causes from records, the plan. */
import assert from 'node:assert/strict';
import { describe, test } from 'node:test';
import { analyse } from '../../benches/sync/analyse.js';
import { COMMANDS_OF, PROFILES, clockBoundMs, kindOf, nextAct, runsOf } from '../../benches/sync/plan.js';
import { figuresOf } from '../../benches/sync/report.js';
import { figure, mulberry32, quantileRange } from '../../benches/sync/statistics.js';
import { CAUSES, traceTable } from '../../benches/sync/trace.js';

describe('statistics of the ruler', () => {
  test('an interval holds the true quantile about as often as it says', () => {
    const random = mulberry32(5);
    let held = 0;
    for (let trial = 0; trial < 200; trial++) {
      const readings = Array.from({ length: 200 }, (_, cluster) => ({ value: random(), cluster }));
      const [low, high] = quantileRange(readings, 0.95, { seed: trial, rounds: 300 });
      if (low <= 0.95 && 0.95 <= high) held += 1;
    }
    assert.ok(held >= 180 && held <= 200, `${held} of 200`);
  });

  test('readings of one moment count as one piece of evidence', () => {
    const random = mulberry32(6);
    const moments = Array.from({ length: 20 }, (_, cluster) => ({ value: random() * 100, cluster }));
    const frames = moments.flatMap(({ value, cluster }) => Array.from({ length: 50 }, () => ({ value, cluster })));
    const width = ([low, high]) => high - low;
    const asIfEach = frames.map(({ value }, cluster) => ({ value, cluster }));
    assert.ok(width(quantileRange(frames, 0.5)) > 3 * width(quantileRange(asIfEach, 0.5)));
    assert.equal(figure(frames).clusters, 20);
    assert.equal(figure(frames).n, 1000);
  });

  test('too few clusters have no interval, and nothing has no quantile', () => {
    assert.equal(quantileRange([1, 2, 3, 4].map((value) => ({ value, cluster: value })), 0.95), null);
    assert.deepEqual(figure([]), { n: 0, clusters: 0, p50: null, p95: null, p95Range: null, max: null, signedMedian: null });
  });

  test('the same seed gives the same interval', () => {
    const readings = Array.from({ length: 60 }, (_, cluster) => ({ value: (cluster * 37) % 61, cluster }));
    assert.deepEqual(quantileRange(readings, 0.95, { seed: 3 }), quantileRange(readings, 0.95, { seed: 3 }));
  });

  test('sizes are told with their sign beside them', () => {
    const { p50, max, signedMedian } = figure([-8, -6, -7, 1, -9].map((value, cluster) => ({ value, cluster })));
    assert.deepEqual([p50, max, signedMedian], [7, 9, -7]);
  });
});

/** A tab that shows every frame of a film that starts at `began`, from `position` on. */
function tab(name, { began, position, playCall, counted = 10, timerLate = 0, heard, clockError = 0, screen = 5 }) {
  const frames = [];
  for (let index = 1; index < 100; index++) {
    const shown = began + index * 40 + screen;
    // Asked 10 ms before the frame is on the screen.
    frames.push([shown, position + index * 0.04, shown - 10, position + (shown - 10 - began) / 1000]);
  }
  return {
    name, room: 'r', transport: 'webtransport', browser: 'chromium', late_joiner: false, joined: 0, ended: 20_000,
    vectors: [
      { seq: 1, cause: 'PLAY_PAUSE', playing: false, position, rate: 1, at: 5000, heard: 5000, gate: false, committed: 4990 },
      { seq: 2, cause: 'PLAY_PAUSE', playing: true, position, rate: 1, at: 10_000, heard, gate: false, committed: 9800 },
    ],
    events: [{ type: 'play()', at: playCall, position, rate: 1, timerLate, counted }],
    clock: [[9000, clockError, 1, 2], [10_000, clockError, 1, 2]],
    frames, sent: [], codes: [], late: [0], offsets: [0, 0], droppedVideoFrames: 0, totalVideoFrames: 99, stats: { jumps: 0 },
  };
}

const commandOf = (tabs, pressure) => analyse(tabs, { until: 20_000, pressure }).commands.at(-1);

describe('traces of the ruler', () => {
  const punctual = { began: 10_000, position: 7, playCall: 9990, heard: 9850 };

  test('a start in time is late by its wait for the screen alone', () => {
    const { kind, skews, spread } = commandOf([tab('a', punctual), tab('b', punctual)], () => 0);
    assert.equal(kind, 'play');
    assert.equal(spread, 0);
    assert.ok(Math.abs(skews[0].skew - 5) < 1e-6);
    assert.ok(Math.abs(skews[0].causes.screen - 5) < 1e-6);
    assert.equal(skews[0].calm, true);
  });

  for (const [cause, change] of [
    ['timer', { began: 10_030, playCall: 10_020, timerLate: 30 }],
    ['hearing', { began: 10_030, playCall: 10_020, heard: 10_020 }],
    ['clock', { began: 10_030, playCall: 10_020, clockError: -30 }],
    ['client', { began: 10_030, playCall: 10_020 }],
    ['pipeline', { began: 10_030 }],
  ]) {
    test(`lateness of 30 ms by ${cause} is told as that, and the parts add up`, () => {
      const late = commandOf([tab('a', punctual), tab('b', { ...punctual, ...change })], () => 0).skews.find(({ tab: name }) => name === 'b');
      assert.ok(Math.abs(late.skew - 35) < 1e-6, `skew ${late.skew}`);
      assert.ok(Math.abs(late.causes[cause] - 30) < 1e-6, JSON.stringify(late.causes));
      assert.ok(Math.abs(CAUSES.reduce((sum, each) => sum + late.causes[each], 0) - late.skew) < 1e-6);
      assert.equal(late.calm, cause !== 'timer');
    });
  }

  test('a machine whose tasks wait for a core is not calm, and one of which nothing is known neither', () => {
    const tabs = [tab('a', punctual), tab('b', punctual)];
    assert.equal(commandOf(tabs, () => 0.6).skews[0].calm, false);
    assert.equal(commandOf(tabs, () => null).skews[0].calm, false);
  });

  test('a command has a line for each tab, with all of its steps', () => {
    const command = commandOf([tab('a', punctual), tab('b', punctual)], () => 0);
    const [head, first, second, rest] = traceTable([{ name: 'run', commands: [command] }]).split('\n');
    assert.equal(rest, '');
    assert.equal(head.split(',').length, first.split(',').length);
    assert.match(second, /^run,r,2,play,b,chromium,webtransport,,9800,9850,10000,9990,10045,5,/);
  });
});

describe('figures of the ruler', () => {
  test('a goal is judged by its interval: surely, not surely, or not at all', () => {
    const rooms = [{ tabs: 2, packets: [], records: [], result: { commands: [], steady: [], player: [], joiners: [], clock: [] } }];
    const steady = (size) => Array.from({ length: 100 }, (_, cluster) => ({ value: size(cluster), cluster, transport: 'websocket', browser: 'firefox' }));
    const verdictOf = (readings) => {
      const { goals } = figuresOf('clean', [{ ...rooms[0], result: { ...rooms[0].result, steady: readings } }], 'drift');
      return goals.find(({ what }) => what.startsWith('steady')).verdict;
    };
    assert.equal(verdictOf(steady(() => 5)), 'reached');
    assert.equal(verdictOf(steady(() => 25)), 'missed');
    assert.equal(verdictOf(steady((index) => (index < 94 ? 5 : 40))), 'missed, not surely');
    assert.equal(verdictOf([]), 'not measured');
  });
});

describe('the plan of the ruler', () => {
  test('the full plan has every line with 200 commands and 40 late joiners, and half an hour of drift', () => {
    const runs = runsOf({});
    for (const profile of Object.keys(PROFILES)) {
      const run = runs.find(({ name }) => name === profile);
      assert.ok(run.commands >= 200 && run.joins >= 40, profile);
    }
    assert.ok(runs.some(({ style, seconds }) => style === 'drift' && seconds >= 1800));
    assert.throws(() => runsOf({ runs: ['nonsense'] }), /there are clean, /);
  });

  test('a schedule reaches its numbers and ends', () => {
    const [run] = runsOf({ runs: ['clean'] });
    const done = { commands: 0, joins: 0 };
    for (let step = 0; ; step++) {
      const act = nextAct(run, step, done);
      if (act === null) break;
      if (act === 'join') done.joins += 1;
      else done.commands += COMMANDS_OF[act];
      assert.ok(step < 400);
    }
    assert.ok(done.commands >= 200 && done.joins === 40, JSON.stringify(done));
  });

  test('both browsers and both transports meet in each room', () => {
    for (const room of [0, 1]) {
      const kinds = [0, 1].map((index) => kindOf(index, room));
      assert.equal(new Set(kinds.map(({ browser }) => browser)).size, 2);
      assert.equal(new Set(kinds.map(({ transport }) => transport)).size, 2);
    }
    assert.equal(new Set([0, 1].flatMap((room) => [0, 1].map((index) => JSON.stringify(kindOf(index, room))))).size, 4);
  });

  test('the clock may be off by half of what its two ways differ in', () => {
    assert.equal(clockBoundMs(PROFILES.clean), 0);
    assert.equal(clockBoundMs(PROFILES.asymmetric), 30);
    assert.equal(clockBoundMs(PROFILES.bad), 15);
  });
});
