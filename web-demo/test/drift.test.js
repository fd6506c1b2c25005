import assert from 'node:assert/strict';
import { test } from 'node:test';
import { DriftFilter, Latency, RateController } from '../client/drift.js';

test('a reading that is far off moves nothing', () => {
  const filter = new DriftFilter();
  for (const [at, drift] of [[0, 5], [100, 5], [200, 90], [300, 5], [400, 4]]) filter.add(at, drift);
  assert.equal(filter.read(400).drift, 5);
});

test('too few readings are none', () => {
  const filter = new DriftFilter();
  filter.add(0, 5);
  filter.add(100, 5);
  assert.equal(filter.read(100), null);
  filter.add(200, 5);
  assert.notEqual(filter.read(200), null);
  assert.equal(filter.read(5000), null, 'and old ones neither');
});

test('while a correction runs, earlier readings are carried along: there is no lag', () => {
  const filter = new DriftFilter();
  filter.setSlip(0, 0);
  for (let at = 0; at <= 400; at += 100) filter.add(at, -40);
  filter.setSlip(400, 0.08);
  assert.equal(filter.read(400).drift, -40);
  assert.ok(Math.abs(filter.read(900).drift) < 1e-9);
});

test('a correction begins above the noise, and ends well below where it began', () => {
  const controller = new RateController();
  assert.equal(controller.deviation(5, 0, 100), 0);
  assert.ok(controller.deviation(7, 0, 100) < 0);
  assert.ok(controller.deviation(3, 0, 100) < 0, 'hysteresis');
  assert.equal(controller.deviation(1.5, 0, 100), 0);
  assert.equal(controller.deviation(7, 4, 100), 0, 'noisy readings prove less');
  assert.ok(controller.deviation(-15, 50, 100) > 0, 'but never nothing');
});

test('a correction is bounded, and slow where it is looked after seldom', () => {
  const controller = new RateController();
  assert.equal(controller.deviation(500, 0, 100), -0.08);
  const seldom = Math.abs(controller.deviation(-50, 0, 1000));
  assert.ok(seldom * 1000 <= 50, 'it must not run past its aim before the next look');
});

test('a latency is quick to grow and slow to shrink', () => {
  const latency = new Latency(100, 1000);
  latency.learn(300);
  assert.equal(latency.ms, 220);
  latency.learn(100);
  assert.equal(latency.ms, 190);
  latency.learn(90_000);
  assert.equal(latency.ms, 1000);
});
