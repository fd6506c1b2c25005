/** The figures as one picture: an SVG in a Chromium page, and a screenshot of it. */

const WIDTH = 1280;
const PANEL = { w: 590, h: 300 };
const PAD = { left: 58, right: 14, top: 46, bottom: 46 };
const COLOURS = { webtransport: '#c2410c', websocket: '#1d4ed8' };
const NAMES = { webtransport: 'WebTransport', websocket: 'WebSocket' };
const KINDS = Object.keys(COLOURS);

/** @param {import('playwright-core').Browser} browser */
export async function drawPlot(browser, { result, report, from }, path) {
  const { setup, load } = report;
  const svg = [
    commandsPanel(result, report, from),
    at(0, 1, histogram({
      title: 'Steady drift of the frame on the screen', axis: 'ms ahead of the room (negative: behind)', reach: 60, step: 4, band: 20,
      series: result.steady, figures: report.steadyDriftMs,
    })),
    at(1, 1, histogram({
      title: 'Clock error: a tab’s room time − the machine’s clock', axis: 'ms', reach: 2, step: 0.1, series: result.clock, figures: report.clockErrorMs, digits: 2,
    })),
    at(0, 2, histogram({
      title: 'The same drift by the player’s own clock (currentTime)', axis: 'ms ahead of the room', reach: 60, step: 4, band: 20,
      series: result.player, figures: report.steadyPlayerClockMs,
    })),
    at(1, 2, joinersPanel(result, report)),
  ].join('');
  const height = 3 * (PANEL.h + 24) + 92;
  const html = `<!doctype html><meta charset="utf-8"><style>
    body { margin: 0; background: #fff; font: 13px/1.4 "Inter", "DejaVu Sans", "Liberation Sans", sans-serif; color: #1c1917; }
    text { fill: #1c1917; } .title { font-size: 15px; font-weight: 600; } .muted { fill: #57534e; font-size: 12px; } .head { font-size: 20px; font-weight: 700; }
  </style><svg width="${WIDTH}" height="${height}" xmlns="http://www.w3.org/2000/svg">
    <text x="24" y="34" class="head">How far apart are the players?</text>
    <text x="24" y="56" class="muted">${setup.tabsPerTransport} tabs on WebTransport and ${setup.tabsPerTransport} on WebSocket, one ${setup.cpus}-core machine (${load.cpuBusyPercent} % busy, ${load.ownCpuPercent} % by this bench), ${setup.seconds} s, seed ${setup.seed}, Chromium ${setup.browser}, ${setup.server}, ${setup.film}</text>
    ${KINDS.map((kind, i) => `<circle cx="${980 + i * 140}" cy="30" r="5" fill="${COLOURS[kind]}"/><text x="${992 + i * 140}" y="34">${NAMES[kind]}</text>`).join('')}
    <g transform="translate(0 72)">${svg}</g></svg>`;
  const page = await browser.newPage({ viewport: { width: WIDTH, height } });
  await page.setContent(html);
  await page.screenshot({ path });
  await page.close();
}

const at = (column, row, svg) => `<g transform="translate(${24 + column * (PANEL.w + 52)} ${row * (PANEL.h + 24)})">${svg}</g>`;
const line = (x1, y1, x2, y2, colour = '#d6d3d1', extra = '') => `<line x1="${x1}" y1="${y1}" x2="${x2}" y2="${y2}" stroke="${colour}" ${extra}/>`;
const text = (x, y, words, extra = 'class="muted"') => `<text x="${x}" y="${y}" ${extra}>${words}</text>`;

function frameOf(width, { title, subtitle, xTicks, yTicks, x, y, axis, yAxis, band }) {
  const bottom = PANEL.h - PAD.bottom;
  return [
    text(0, 16, title, 'class="title"'),
    text(0, 34, subtitle),
    band ? `<rect x="${PAD.left}" y="${y(band)}" width="${width - PAD.left - PAD.right}" height="${y(-band) - y(band)}" fill="#16a34a" opacity="0.10"/>` : '',
    ...yTicks.map((value) => line(PAD.left, y(value), width - PAD.right, y(value), value === 0 ? '#78716c' : '#e7e5e4') + text(PAD.left - 8, y(value) + 4, value, 'class="muted" text-anchor="end"')),
    ...xTicks.map(([value, label]) => line(x(value), bottom, x(value), bottom + 4, '#78716c') + text(x(value), bottom + 18, label ?? value, 'class="muted" text-anchor="middle"')),
    text((PAD.left + width - PAD.right) / 2, PANEL.h - 6, axis, 'class="muted" text-anchor="middle"'),
    text(0, 0, yAxis, `class="muted" text-anchor="middle" transform="translate(14 ${(PAD.top + bottom) / 2}) rotate(-90)"`),
  ].join('');
}

/** Every command, every tab. */
function commandsPanel({ commands }, { commandSkewMs, commandSpreadMs }, from) {
  const width = WIDTH - 48;
  const reach = 80;
  const bottom = PANEL.h - PAD.bottom;
  const x = (index) => PAD.left + ((index + 0.5) / Math.max(1, commands.length)) * (width - PAD.left - PAD.right);
  const y = (value) => PAD.top + ((reach - value) / (2 * reach)) * (bottom - PAD.top);
  const { p50, p95, max } = commandSkewMs.all;
  const marks = commands.map(({ skews, kind, at: when }, index) => {
    const label = text(x(index), bottom + 16, kind, 'class="muted" text-anchor="middle" font-size="11"') + text(x(index), bottom + 29, `${Math.round((when - from) / 1000)} s`, 'class="muted" text-anchor="middle" font-size="10"');
    const dots = skews.map(({ effect, transport }, i) => {
      const clipped = Math.max(-reach, Math.min(reach, effect));
      const cx = x(index) + (i - (skews.length - 1) / 2) * 3.2;
      if (clipped !== effect) return `<path d="M ${cx - 4} ${y(clipped) + (effect > 0 ? 8 : -8)} h 8 l -4 ${effect > 0 ? -8 : 8} z" fill="${COLOURS[transport]}"/>`;
      return `<circle cx="${cx}" cy="${y(effect)}" r="3.4" fill="${COLOURS[transport]}" opacity="0.8"/>`;
    });
    return label + dots.join('');
  });
  return `<g transform="translate(24 0)">${frameOf(width, {
    title: 'When each command took effect, against the moment the room had set for it (one dot a tab; 0 is the moment, the band ±20 ms)',
    subtitle: `skew p50 ${p50} ms, p95 ${p95} ms, max ${max} ms; between the first and the last tab of a command: p50 ${commandSpreadMs.p50} ms, p95 ${commandSpreadMs.p95} ms. Arrows: beyond the scale`,
    xTicks: [], yTicks: [-80, -40, -20, 0, 20, 40, 80], x, y, axis: '', yAxis: 'ms too late', band: 20,
  })}${marks.join('')}</g>`;
}

function histogram({ title, axis, reach, step, band, series, figures, digits = 1 }) {
  const bins = Math.round((2 * reach) / step);
  const bottom = PANEL.h - PAD.bottom;
  const x = (value) => PAD.left + ((value + reach) / (2 * reach)) * (PANEL.w - PAD.left - PAD.right);
  const shares = KINDS.map((kind) => {
    const counts = new Array(bins).fill(0);
    const values = series.filter(({ transport }) => transport === kind);
    for (const { value } of values) counts[Math.max(0, Math.min(bins - 1, Math.floor((value + reach) / step)))] += 1;
    return counts.map((count) => (100 * count) / Math.max(1, values.length));
  });
  const top = Math.max(10, Math.ceil(Math.max(...shares.flat()) / 10) * 10);
  const y = (value) => PAD.top + ((top - value) / top) * (bottom - PAD.top);
  const steps = shares.map((share, i) => {
    const path = share.map((value, bin) => `${bin ? 'L' : 'M'} ${x(-reach + bin * step)} ${y(value)} H ${x(-reach + (bin + 1) * step)}`).join(' ');
    return `<path d="${path}" fill="none" stroke="${COLOURS[KINDS[i]]}" stroke-width="2"/>`;
  });
  const shade = band ? `<rect x="${x(-band)}" y="${PAD.top}" width="${x(band) - x(-band)}" height="${bottom - PAD.top}" fill="#16a34a" opacity="0.10"/>` : '';
  const ticks = [-1, -0.5, 0, 0.5, 1].map((part) => [part * reach]);
  const { p50, p95, max, n } = figures.all;
  const short = (value) => (value === null ? '–' : value.toFixed(digits));
  return shade + frameOf(PANEL.w, {
    title, subtitle: `size: p50 ${short(p50)} ms, p95 ${short(p95)} ms, max ${short(max)} ms (${n.toLocaleString('en')} readings; the ends hold what is beyond)`,
    xTicks: ticks, yTicks: [0, top / 2, top], x, y, axis, yAxis: '% of readings',
  }) + steps.join('');
}

/** Drift from the moment of joining on. */
function joinersPanel({ joiners }, { lateJoinerMs }) {
  const bottom = PANEL.h - PAD.bottom;
  const reach = 100;
  const x = (ms) => PAD.left + (ms / 6000) * (PANEL.w - PAD.left - PAD.right);
  const y = (value) => PAD.top + ((reach - Math.max(-reach, Math.min(reach, value))) / (2 * reach)) * (bottom - PAD.top);
  const lines = joiners.map(({ path, transport }) => `<polyline fill="none" stroke="${COLOURS[transport]}" stroke-width="1.4" opacity="0.8" points="${path.filter(([ms]) => ms >= 0).map(([ms, drift]) => `${x(ms).toFixed(1)},${y(drift).toFixed(1)}`).join(' ')}"/>`);
  const { p50, max, n } = lateJoinerMs.all;
  return frameOf(PANEL.w, {
    title: 'Late joiners: drift of the frame on the screen', subtitle: `3 s after joining: p50 ${p50 ?? '–'} ms, max ${max ?? '–'} ms (${n} joins)`,
    xTicks: [0, 1000, 2000, 3000, 4000, 5000, 6000].map((ms) => [ms, `${ms / 1000} s`]), yTicks: [-100, -20, 0, 20, 100], x, y, axis: 'since joining', yAxis: 'ms ahead', band: 20,
  }) + line(x(3000), PAD.top, x(3000), bottom, '#78716c', 'stroke-dasharray="4 3"') + lines.join('');
}
