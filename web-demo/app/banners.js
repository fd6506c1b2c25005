/** Reconnecting, degraded, and the ready gate with its countdown. */
import { onChange } from './change.js';
import { byId, every, listen, setText, setVar } from './dom.js';
import { isolate, nameList } from './format.js';

/** How long a line may be down before it is worth a banner: a blip heals by itself. */
const BLIP_MS = 900;

/** @param {import('./types.js').Ctx} ctx */
export function setupBanners({ room, signal }) {
  const reconnecting = byId('banner-reconnecting', HTMLElement);
  const degraded = byId('banner-degraded', HTMLElement);
  const gateBox = byId('gate', HTMLElement);
  const gateText = byId('gate-text', HTMLElement);
  const gateCount = byId('gate-count', HTMLElement);
  const arc = byId('gate-arc', SVGCircleElement);
  let downSince = 0;
  /** @type {{id: number, span: number} | null} */
  let seen = null;

  const update = () => {
    const down = room.state === 'reconnecting' || room.state === 'connecting';
    if (!down) downSince = 0;
    else downSince ||= performance.now();
    reconnecting.hidden = !down || performance.now() - downSince < BLIP_MS;
    degraded.hidden = !room.degraded || down;

    const gate = room.gate;
    gateBox.hidden = gate === null || down;
    if (gate === null) {
      seen = null;
      return;
    }
    const left = Math.max(0, gate.deadline - room.clock.roomTime());
    if (seen?.id !== gate.id) seen = { id: gate.id, span: Math.max(1, left) };
    const waiting = gate.awaiting.filter((id) => !gate.ready.includes(id));
    const names = waiting.map((id) => (id === room.self.userId ? 'you' : isolate(room.members.find((m) => m.userId === id)?.username ?? 'somebody')));
    setText(gateText, names.length ? `Waiting for ${nameList(names)}…` : 'Everyone is ready');
    setText(gateCount, `${Math.ceil(left / 1000)} s`);
    setVar(arc, '--left', String(Math.round((left / seen.span) * 100)));
  };
  every(200, update, signal);
  onChange(room, update, signal);
  listen(room, 'state', update, signal);
}
