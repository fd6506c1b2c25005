/** Numbers and times as people read them. */

/** @param {number} seconds */
export function clockText(seconds) {
  const whole = Math.max(0, Math.floor(Number.isFinite(seconds) ? seconds : 0));
  const minutes = Math.floor(whole / 60) % 60;
  const hours = Math.floor(whole / 3600);
  const tail = `${String(minutes).padStart(hours ? 2 : 1, '0')}:${String(whole % 60).padStart(2, '0')}`;
  return hours ? `${hours}:${tail}` : tail;
}

/** The same for a screen reader. @param {number} seconds */
export function spokenTime(seconds) {
  const whole = Math.max(0, Math.floor(Number.isFinite(seconds) ? seconds : 0));
  const parts = [];
  if (whole >= 3600) parts.push(`${Math.floor(whole / 3600)} h`);
  if (whole >= 60) parts.push(`${Math.floor(whole / 60) % 60} min`);
  parts.push(`${whole % 60} s`);
  return parts.join(' ');
}

/** @param {number | null | undefined} ms */
export function msText(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return '–';
  if (Math.abs(ms) >= 10_000) return `${Math.round(ms / 1000)} s`;
  if (Math.abs(ms) >= 1000) return `${(ms / 1000).toFixed(1)} s`;
  return `${Math.abs(ms) < 10 ? ms.toFixed(1) : Math.round(ms)} ms`;
}

/** With its sign, and a true minus. @param {number | null | undefined} ms */
export function signedMs(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return '–';
  const text = msText(Math.abs(ms));
  if (/^0(\.0)? /.test(text)) return '±0 ms';
  return `${ms < 0 ? '−' : '+'}${text}`;
}

/**
 * How a drift looks: within a frame at 25 a second nobody notices; beyond a quarter of a second everybody does.
 * @param {number | null | undefined} ms
 * @returns {'good' | 'warn' | 'bad' | 'idle'}
 */
export function driftTone(ms) {
  if (ms === null || ms === undefined || !Number.isFinite(ms)) return 'idle';
  const size = Math.abs(ms);
  return size <= 40 ? 'good' : size <= 250 ? 'warn' : 'bad';
}

/**
 * A name inside a sentence: its writing direction ends where it ends. dom.js makes it an element.
 * @param {string} name
 */
export function isolate(name) {
  return `\u2068${name}\u2069`;
}

/**
 * A lost member's place is kept at most this long as far as anybody waits for it; beyond it the server keeps the whole
 * room.
 */
const LONGEST_GRACE_S = 600;

/**
 * How long the place of a member who lost the connection is kept yet, in s; null: the member is here, or nobody knows.
 * @param {{connected: boolean, graceUntil: number | null} | undefined} member @param {number} roomTime
 */
export function awaySeconds(member, roomTime) {
  if (!member || member.connected || member.graceUntil === null) return null;
  const left = Math.ceil((member.graceUntil - roomTime) / 1000);
  return left > 0 && left < LONGEST_GRACE_S ? left : null;
}

/** "Ann", "Ann and Bob", "Ann, Bob and 2 more". @param {string[]} names */
export function nameList(names) {
  if (names.length <= 1) return names[0] ?? '';
  if (names.length === 2) return `${names[0]} and ${names[1]}`;
  if (names.length === 3) return `${names[0]}, ${names[1]} and ${names[2]}`;
  return `${names[0]}, ${names[1]} and ${names.length - 2} more`;
}

/** @param {number} timestamp ms */
export function wallTime(timestamp) {
  return new Date(timestamp).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}

/**
 * How a large room does, in one line: "1,204 watching · 98 % in step · 3 buffering".
 * @param {{watching: number, measured: number, inStep: number, buffering: number}} digest
 */
export function digestText({ watching, measured, inStep, buffering }) {
  const parts = [`${watching.toLocaleString('en')} watching`];
  // Rounded down: "100 %" means everybody.
  if (measured > 0) parts.push(`${Math.floor((100 * inStep) / measured)} % in step`);
  if (buffering > 0) parts.push(`${buffering.toLocaleString('en')} buffering`);
  return parts.join(' · ');
}

/** The last part of a film's address, as a title. @param {string} url */
export function filmTitle(url) {
  try {
    const { pathname, hostname } = new URL(url);
    const last = decodeURIComponent(pathname.split('/').filter(Boolean).pop() ?? '');
    return last || hostname;
  } catch {
    return url;
  }
}
