/** The event log: every message on the wire, for people who test by hand, and a box to send any message. */
import { byId, every, h, listen, setText } from './dom.js';
import { jsonNodes } from './json-view.js';

/** Rows kept; a long evening of them would make the page heavy. */
const KEEP = 400;

/** @typedef {{direction: 'in' | 'out' | 'local', type: string, text: string, message: unknown, at: Date}} Entry */

/** @type {[string, object][]} */
const TEMPLATES = [
  ['Templates…', {}],
  ['PLAY_PAUSE', { type: 'PLAY_PAUSE', control: 'play', currentTime: 12.5 }],
  ['SEEK', { type: 'SEEK', currentTime: 30, isPlaying: true }],
  ['SET_RATE', { type: 'SET_RATE', rate: 1.25 }],
  ['CHAT', { type: 'CHAT', text: 'hello' }],
  ['CUSTOM', { type: 'CUSTOM', namespace: 'org.example.poll', payload: { vote: 2 } }],
  ['REQUEST_SYNC', { type: 'REQUEST_SYNC' }],
  ['PING', { type: 'PING', timestamp: 1 }],
  ['Unknown type', { type: 'NO_SUCH_TYPE' }],
];

/**
 * @param {import('./types.js').Ctx} ctx @param {ReturnType<typeof import('./tabs.js').setupTabs>} tabs
 * @param {boolean} fresh
 * @param {import('./session.js').Heard[]} early
 */
export function setupLog({ room, signal }, tabs, fresh, early) {
  const list = byId('log-list', HTMLElement);
  const filter = byId('log-filter', HTMLInputElement);
  const pause = byId('log-pause', HTMLButtonElement);
  const compactLine = byId('log-compact', HTMLElement);
  /** Compact messages come many times a second: they are counted, not listed. @type {Map<string, number>} */
  const compact = new Map();
  /** Messages that arrived while paused. @type {Entry[]} */
  let held = [];
  let paused = false;
  if (fresh) list.replaceChildren();
  pause.setAttribute('aria-pressed', 'false');

  const matches = (/** @type {string} */ text) => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    return words.every((word) => text.includes(word));
  };
  /** @param {Entry} entry */
  const add = (entry) => {
    if (paused) {
      held.push(entry);
      if (held.length > KEEP) held.shift();
      setText(pause, `Resume (${held.length})`);
      return;
    }
    const atEnd = list.scrollHeight - list.scrollTop - list.clientHeight < 40;
    const row = makeRow(entry);
    row.hidden = !matches(row.dataset.text ?? '');
    list.append(row);
    while (list.childElementCount > KEEP) list.firstElementChild?.remove();
    if (atEnd) list.scrollTop = list.scrollHeight;
  };

  /** @param {any} detail @param {Date} at */
  const onMessage = ({ direction, message, compact: isCompact }, at) => {
    if (isCompact) {
      const key = `${direction} ${message?.kind ?? '?'}`;
      compact.set(key, (compact.get(key) ?? 0) + 1);
      return;
    }
    add({ direction, type: String(message?.type ?? '?'), text: brief(message), message, at });
  };
  for (const { type, detail, at } of early) if (type === 'message') onMessage(detail, at);
  listen(room, 'message', (event) => onMessage(event.detail, new Date()), signal);
  listen(room, 'state', () => add({ direction: 'local', type: 'state', text: room.state, message: { state: room.state, transport: room.transport }, at: new Date() }), signal);
  listen(room, 'closed', (event) => add({ direction: 'local', type: 'closed', text: brief(event.detail), message: event.detail, at: new Date() }), signal);

  every(500, () => {
    if (!tabs.isSelected('log')) return;
    const count = (/** @type {string} */ key) => (compact.get(key) ?? 0).toLocaleString('en');
    setText(compactLine, `ticks ↓${count('in tick')} ↑${count('out tick')}   statuses ↓${count('in status')} ↑${count('out status')}   digests ↓${count('in digest')}   clock ↑${count('out probe')} ↓${count('in reply')}`);
  }, signal);
  tabs.onSelect((name) => {
    if (name === 'log') list.scrollTop = list.scrollHeight;
  });

  filter.oninput = () => {
    for (const row of list.children) if (row instanceof HTMLElement) row.hidden = !matches(row.dataset.text ?? '');
    list.scrollTop = list.scrollHeight;
  };
  setText(pause, 'Pause');
  pause.onclick = () => {
    paused = !paused;
    pause.setAttribute('aria-pressed', String(paused));
    setText(pause, paused ? 'Resume' : 'Pause');
    if (paused) return;
    const waiting = held;
    held = [];
    waiting.forEach(add);
  };
  byId('log-clear', HTMLButtonElement).onclick = () => {
    list.replaceChildren();
    held = [];
    compact.clear();
    if (paused) setText(pause, 'Resume');
  };
  setupRawBox(room, signal);
}

/** @param {Entry} entry */
function makeRow({ direction, type, text, message, at }) {
  const kind = type === 'ERROR' ? 'error' : direction;
  const time = at.toTimeString().slice(0, 8);
  const details = h('details', {},
    h('summary', {},
      h('span', { class: 'log-arrow' }, direction === 'in' ? '↓' : direction === 'out' ? '↑' : '·', h('span', { class: 'sr-only' }, direction === 'in' ? 'received' : direction === 'out' ? 'sent' : 'here')),
      h('time', { class: 'log-time' }, time),
      h('span', { class: 'log-type' }, type),
      h('span', { class: 'log-brief' }, text)));
  // The tree is made when somebody looks: most rows never are.
  details.addEventListener('toggle', () => {
    if (details.childElementCount === 1) details.append(h('pre', { class: 'log-json' }, ...jsonNodes(message)));
  }, { once: true });
  const row = h('li', { class: `log-item log-${kind}` }, details);
  row.dataset.text = `${direction} ${type} ${JSON.stringify(message)}`.toLowerCase();
  return row;
}

/** The message without what every message has. @param {unknown} message */
function brief(message) {
  if (typeof message !== 'object' || message === null) return String(message);
  const skip = new Set(['type', 'timestamp', 'epoch', 'protocol', 'playback', 'resumeToken', 'sessionId', 'nodeId', 'peerId']);
  return Object.entries(message)
    .filter(([key]) => !skip.has(key))
    .map(([key, value]) => `${key} ${typeof value === 'object' ? JSON.stringify(value) : value}`)
    .join('  ')
    .slice(0, 240);
}

/** @param {import('./types.js').Room} room @param {AbortSignal} signal */
function setupRawBox(room, signal) {
  const text = byId('raw-text', HTMLTextAreaElement);
  const note = byId('raw-note', HTMLElement);
  const template = byId('raw-template', HTMLSelectElement);
  template.replaceChildren(...TEMPLATES.map(([name], index) => new Option(name, String(index))));
  if (!text.value) text.value = JSON.stringify({ type: 'PING', timestamp: 1 });
  template.onchange = () => {
    const [, message] = TEMPLATES[Number(template.value)];
    if (Object.keys(message).length) text.value = JSON.stringify(message, null, 1);
    template.value = '0';
    say('', '');
  };
  const say = (/** @type {string} */ words, /** @type {string} */ tone) => {
    note.textContent = words;
    note.dataset.tone = tone;
  };
  listen(byId('raw-form', HTMLFormElement), 'submit', (/** @type {Event} */ event) => {
    event.preventDefault();
    let message;
    try {
      message = JSON.parse(text.value);
    } catch (error) {
      return say(`Not JSON: ${error instanceof Error ? error.message : ''}`, 'bad');
    }
    if (room.state !== 'joined') return say('Not connected right now.', 'bad');
    room.send(message);
    say('Sent as it is. The answer appears above.', '');
  }, signal);
}
