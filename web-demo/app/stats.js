/** Graphs of the last minute, the facts behind them, and the choice of transport. */
import { byId, every, h, listen, setText } from './dom.js';
import { filmTitle, msText, signedMs } from './format.js';
import { isTransport } from './fragment.js';
import { FRAMES_PER_SECOND, readFrame } from './framecode.js';
import { makeGraph, SPAN_MS } from './graph.js';
import { testFilm } from './source.js';

/** @typedef {import('./graph.js').Sample} Sample */

const SAMPLE_MS = 250;
const TRANSPORT_NAME = { webtransport: 'WebTransport', websocket: 'WebSocket' };

/** @param {import('./types.js').Ctx} ctx @param {ReturnType<typeof import('./tabs.js').setupTabs>} tabs */
export function setupStats(ctx, tabs) {
  const { room, sync, signal } = ctx;
  /** @type {Sample[]} */
  const drifts = [];
  /** @type {Sample[]} */
  const trips = [];
  const driftCanvas = byId('graph-drift', HTMLCanvasElement);
  const rttCanvas = byId('graph-rtt', HTMLCanvasElement);
  const driftGraph = makeGraph(driftCanvas, { legend: byId('legend-drift', HTMLElement), signed: true, scales: [20, 50, 100, 250, 1000, 5000], band: 40 });
  const rttGraph = makeGraph(rttCanvas, { legend: byId('legend-rtt', HTMLElement), signed: false, scales: [10, 25, 50, 100, 250, 1000, 5000] });
  const facts = makeFacts(byId('facts', HTMLElement));
  let beat = 0;

  const draw = () => {
    if (!tabs.isSelected('stats') || document.hidden) return;
    const now = performance.now();
    driftGraph.draw(drifts, now);
    rttGraph.draw(trips, now);
    setText(byId('drift-now', HTMLElement), signedMs(drifts[drifts.length - 1]?.value));
    setText(byId('rtt-now', HTMLElement), msText(trips[trips.length - 1]?.value));
    facts(factsOf(ctx));
    // A picture for the ear, but not four times a second.
    if (beat % 20 === 1) {
      driftCanvas.setAttribute('aria-label', describe('Your drift', drifts));
      rttCanvas.setAttribute('aria-label', describe('Round trip', trips));
    }
  };
  every(SAMPLE_MS, () => {
    beat++;
    const at = performance.now();
    const steering = Boolean(room.url) && room.playback.playing;
    push(drifts, at, steering ? sync.drift : null);
    push(trips, at, room.state === 'joined' ? room.clock.rtt : null);
    draw();
  }, signal);
  tabs.onSelect(draw);
  listen(document, 'tandem-theme', draw, signal);

  for (const radio of byId('transport-choice', HTMLElement).querySelectorAll('input')) {
    radio.checked = radio.value === ctx.wish.transport;
    radio.onchange = () => {
      if (radio.checked && isTransport(radio.value)) ctx.reconnect(radio.value);
    };
  }
}

/** @param {Sample[]} samples @param {number} at @param {number | null | undefined} value */
function push(samples, at, value) {
  samples.push({ at, value: typeof value === 'number' && Number.isFinite(value) ? value : null });
  while (samples.length && at - samples[0].at > SPAN_MS) samples.shift();
}

/** @param {string} what @param {Sample[]} samples */
function describe(what, samples) {
  const values = samples.map((s) => s.value).filter((v) => v !== null);
  if (!values.length) return `${what} over the last minute: nothing measured`;
  return `${what} over the last minute: now ${signedMs(values[values.length - 1])}, between ${signedMs(Math.min(...values))} and ${signedMs(Math.max(...values))}`;
}

/** @param {HTMLElement} list */
function makeFacts(list) {
  /** @type {Map<string, HTMLElement>} */
  const cells = new Map();
  list.replaceChildren();
  return (/** @type {[string, string][]} */ pairs) => {
    for (const [name, value] of pairs) {
      let cell = cells.get(name);
      if (!cell) {
        cell = h('dd');
        cells.set(name, cell);
        list.append(h('dt', {}, name), cell);
      }
      setText(cell, value);
    }
  };
}

/** @param {import('./types.js').Ctx} ctx @returns {[string, string][]} */
function factsOf({ room, sync, video }) {
  const { clock, playback } = room;
  return [
    ['Transport', room.transport ? TRANSPORT_NAME[room.transport] : '–'],
    ['State', room.state + (room.degraded ? ', degraded' : '')],
    ['Room time', clock.synced ? new Date(clock.roomTime()).toISOString().slice(11, 23) : 'not measured yet'],
    ['Clock error', clock.error === null ? '–' : `± ${msText(clock.error)}`],
    ['Steering', STEERING[sync.mode] ?? sync.mode],
    ['Player rate', `${video.playbackRate.toFixed(3)}× of ${playback.rate}×`],
    ['Position', `${video.currentTime.toFixed(3)} s of ${room.positionNow().toFixed(3)} s`],
    ['Frame on screen', frameFact(room, video)],
    ['Vector', `${playback.position.toFixed(2)} s, ${playback.playing ? 'playing' : 'paused'}, #${playback.seq}`],
    ['Epoch, seq', `${room.epoch}, ${room.seq}`],
    ['You', `${room.self.userId}, slot ${room.self.slot ?? '–'}`],
    ['Node', room.nodeId || '–'],
  ];
}

/** @type {Record<string, string>} */
const STEERING = { idle: 'at rest', rate: 'by rate', seek: 'by seeking', waiting: 'waiting' };

/** The test film shows its frame number to machines as well: what is on the screen against what should be. */
function frameFact(/** @type {import('./types.js').Room} */ room, /** @type {HTMLVideoElement} */ video) {
  if (!room.url || filmTitle(room.url) !== filmTitle(testFilm()) || video.readyState < 2) return 'only with the test film';
  const shown = readFrame(video);
  if (shown === null) return 'can’t be read';
  return `${shown} of ${Math.floor(room.positionNow() * FRAMES_PER_SECOND + 1e-6)}`;
}
