/** A minute of one figure on a canvas, sharp on any display. */
export const SPAN_MS = 60_000;

/** @typedef {{at: number, value: number | null}} Sample */

/**
 * @typedef {object} GraphOptions
 * @property {HTMLElement} legend     its colours are the graph's: `--series` through its marker, text, lines
 * @property {boolean} signed         zero in the middle
 * @property {number[]} scales        the full scales to choose from, ascending
 * @property {number} [band]          values up to this are good: drawn as a band
 */

/** @param {HTMLCanvasElement} canvas @param {GraphOptions} options */
export function makeGraph(canvas, { legend, signed, scales, band }) {
  const context = canvas.getContext('2d');
  let full = scales[0];

  /** @param {Sample[]} samples @param {number} now */
  function draw(samples, now) {
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (!context || width === 0) return;
    const ratio = window.devicePixelRatio || 1;
    if (canvas.width !== Math.round(width * ratio) || canvas.height !== Math.round(height * ratio)) {
      canvas.width = Math.round(width * ratio);
      canvas.height = Math.round(height * ratio);
    }
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, width, height);

    // Canvas can't read light-dark() from a custom property, but a computed colour of a real element it can.
    const style = getComputedStyle(legend);
    const series = getComputedStyle(legend, '::before').backgroundColor;
    const largest = samples.reduce((max, s) => (s.value === null ? max : Math.max(max, Math.abs(s.value))), 0);
    full = scales.find((scale) => largest <= scale * 0.95) ?? scales[scales.length - 1];
    const zero = signed ? height / 2 : height - 6;
    const reach = signed ? height / 2 - 6 : height - 16;
    const y = (/** @type {number} */ value) => zero - (Math.max(-full, Math.min(full, value)) / full) * reach;
    const x = (/** @type {number} */ at) => width - ((now - at) / SPAN_MS) * width;

    context.fillStyle = context.strokeStyle = style.color;
    context.lineWidth = 1;
    if (band && band < full) {
      context.globalAlpha = 0.07;
      context.fillRect(0, y(Math.min(band, full)), width, y(signed ? -Math.min(band, full) : 0) - y(Math.min(band, full)));
    }
    context.globalAlpha = 0.16;
    for (const value of signed ? [full, 0, -full] : [full, full / 2, 0]) {
      context.beginPath();
      context.moveTo(0, Math.round(y(value)) + 0.5);
      context.lineTo(width, Math.round(y(value)) + 0.5);
      context.stroke();
    }
    context.globalAlpha = 0.72;
    context.font = `11px ${getComputedStyle(canvas).fontFamily}`;
    context.textBaseline = 'top';
    context.fillText(signed ? `±${scaleText(full)}` : scaleText(full), 8, y(full) + 4);

    context.globalAlpha = 1;
    context.strokeStyle = series;
    context.lineWidth = 1.75;
    context.lineJoin = 'round';
    context.beginPath();
    let pen = false;
    for (const { at, value } of samples) {
      // Where nothing was known the line is broken, not drawn through.
      if (value === null) {
        pen = false;
        continue;
      }
      if (pen) context.lineTo(x(at), y(value));
      else context.moveTo(x(at), y(value));
      pen = true;
    }
    context.stroke();
    const last = samples[samples.length - 1];
    if (last?.value !== null && last !== undefined) {
      context.fillStyle = series;
      context.beginPath();
      context.arc(Math.min(width - 4, x(last.at)), y(last.value), 3, 0, 7);
      context.fill();
    }
  }
  return { draw };
}

/** @param {number} ms */
const scaleText = (ms) => (ms >= 1000 ? `${ms / 1000} s` : `${ms} ms`);
