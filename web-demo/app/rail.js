/** The rail: everybody's distance from room time on one line. It repeats the list of people, so readers skip it. */
import { byId, every, h, setText, setVar } from './dom.js';
import { hueOf, initials } from './identity.js';
import { signedMs } from './format.js';

const FULL_SCALE_MS = 1000;
const LANES = 3;

/** Square root: a frame (40 ms) is a fifth of the way out, a quarter of a second a half. @param {number} ms */
export function railPlace(ms) {
  return Math.sign(ms) * Math.sqrt(Math.min(1, Math.abs(ms) / FULL_SCALE_MS));
}

/** @param {import('./types.js').Ctx} ctx */
export function setupRail({ room, sync, signal }) {
  const line = byId('rail-line', HTMLElement);
  for (const tick of document.querySelectorAll('.rail-tick')) {
    // The outermost labels would be cut in half at the very edge.
    if (tick instanceof HTMLElement) setVar(tick, '--x', String(railPlace(Number(tick.dataset.at)) * 0.94));
  }
  /** @type {Map<string, HTMLElement>} */
  const dots = new Map();
  signal.addEventListener('abort', () => dots.forEach((dot) => dot.remove()), { once: true });

  every(500, () => {
    const { digest } = room;
    // In a large room only those who stand out are known; the others would be a heap in the middle.
    const shown = new Set(digest && [room.self.userId, room.hostUserId, ...digest.standOuts]);
    const members = room.members.filter((m) => m.connected && (digest === null || shown.has(m.userId)));
    for (const [userId, dot] of dots) {
      if (members.some((m) => m.userId === userId)) continue;
      dot.remove();
      dots.delete(userId);
    }
    members.forEach((member, index) => {
      const own = member.userId === room.self.userId;
      const drift = own ? sync.drift : member.driftMs;
      let dot = dots.get(member.userId);
      if (!dot) {
        dot = h('span', { class: `avatar rail-dot${own ? ' self' : ''}`, vars: { '--hue': hueOf(member.userId) } });
        dots.set(member.userId, dot);
        line.append(dot);
      }
      setText(dot, initials(member.username));
      dot.title = `${member.username}: ${signedMs(drift)}`;
      dot.classList.toggle('unknown', drift === null || !Number.isFinite(drift));
      setVar(dot, '--lane', String(index % LANES));
      setVar(dot, '--x', String(railPlace(Number.isFinite(drift) ? Number(drift) : 0) * 0.94));
    });
  }, signal);
}
