/** The icons, as path data on a 24-unit grid. Drawn with createElementNS, so no markup is ever parsed. */

/** @type {Record<string, string>} */
const PATHS = {
  mark: 'M6.5 19a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM17.5 19a4.5 4.5 0 1 0 0-9 4.5 4.5 0 0 0 0 9zM6.5 14.5 10 6h4l3.5 8.5',
  play: 'M7 5.2v13.6a.6.6 0 0 0 .92.5l10.6-6.8a.6.6 0 0 0 0-1L7.92 4.7A.6.6 0 0 0 7 5.2z',
  pause: 'M7 5h3.4v14H7zM13.6 5H17v14h-3.4z',
  lock: 'M6 11h12v9H6zM8.5 11V7.5a3.5 3.5 0 0 1 7 0V11',
  volume: 'M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM15.5 9a4 4 0 0 1 0 6M18 6.5a7.6 7.6 0 0 1 0 11',
  muted: 'M4 9.5v5h3.5L12 18.5v-13L7.5 9.5zM16 9.5l5 5M21 9.5l-5 5',
  expand: 'M4 9V4h5M20 9V4h-5M4 15v5h5M20 15v5h-5',
  shrink: 'M9 4v5H4M15 4v5h5M9 20v-5H4M15 20v-5h5',
  crown: 'M4 17.5 3 7.5l5 4 4-6.5 4 6.5 5-4-1 10z',
  mic: 'M12 14.5a3 3 0 0 0 3-3V6a3 3 0 0 0-6 0v5.5a3 3 0 0 0 3 3zM5.5 11.5a6.5 6.5 0 0 0 13 0M12 18v3',
  micOff: 'M9 9v2.5a3 3 0 0 0 4.5 2.6M15 11V6a3 3 0 0 0-5.8-1M5.5 11.5a6.5 6.5 0 0 0 10 5.5M18.5 11.5a6.4 6.4 0 0 1-.5 2.5M12 18v3M4 4l16 16',
  camera: 'M3.5 7h11v10h-11zM14.5 10.5l6-3v9l-6-3z',
  cameraOff: 'M9 7h5.5v5.5M14.5 15v2h-11V7H6M14.5 10.5l6-3v9l-4-2M4 4l16 16',
  link: 'M10 14a4 4 0 0 0 5.7 0l3.1-3.1a4 4 0 0 0-5.7-5.7L11.5 6.8M14 10a4 4 0 0 0-5.7 0l-3.1 3.1a4 4 0 0 0 5.7 5.7L12.5 17.2',
  leave: 'M14 4H5v16h9M10.5 12H21M17 8l4 4-4 4',
  x: 'M6 6l12 12M18 6 6 18',
  sun: 'M12 16a4 4 0 1 0 0-8 4 4 0 0 0 0 8zM12 2.5v2M12 19.5v2M2.5 12h2M19.5 12h2M5.3 5.3l1.4 1.4M17.3 17.3l1.4 1.4M18.7 5.3l-1.4 1.4M6.7 17.3l-1.4 1.4',
  moon: 'M19.5 14.5A8 8 0 0 1 9.5 4.5a8 8 0 1 0 10 10z',
  system: 'M12 20a8 8 0 1 0 0-16 8 8 0 0 0 0 16zM12 4v16M12 8h5M12 12h7.5M12 16h5',
  keyboard: 'M3 6.5h18v11H3zM7 10.5h.01M10.5 10.5h.01M14 10.5h.01M17 10.5h.01M8 14h8',
  dots: 'M5.5 12h.01M12 12h.01M18.5 12h.01',
  send: 'M4 12 20 4.5 15.5 20l-3.5-6.5zM12 13.5l8-9',
  shuffle: 'M4 7h3.5c4 0 5 10 9 10H20M4 17h3.5c1.5 0 2.6-1.4 3.5-3.2M13 9.2C13.9 7.8 15 7 16.5 7H20M17.5 4.5 20 7l-2.5 2.5M17.5 14.5 20 17l-2.5 2.5',
  refresh: 'M19.5 12a7.5 7.5 0 0 1-13.4 4.6M4.5 12a7.5 7.5 0 0 1 13.4-4.6M18.5 3.5v4h-4M5.5 20.5v-4h4',
  info: 'M12 3.5a8.5 8.5 0 1 0 0 17 8.5 8.5 0 0 0 0-17M12 11v5M12 8h.01',
  chat: 'M4.5 5.5h15v10.5H11l-4.5 3.5V16h-2z',
  warn: 'M12 4 2.8 19.5h18.4zM12 10v4.5M12 17h.01',
  film: 'M4 5h16v14H4zM8 5v14M16 5v14M4 9.5h4M4 14.5h4M16 9.5h4M16 14.5h4',
  chevron: 'M9.5 6l6 6-6 6',
  back: 'M11.5 6 5 12l6.5 6zM19 6l-6.5 6 6.5 6z',
  forward: 'M12.5 6l6.5 6-6.5 6zM5 6l6.5 6L5 18z',
};

const SVG = 'http://www.w3.org/2000/svg';

/** @param {string} name @returns {SVGSVGElement} */
export function icon(name) {
  const svg = document.createElementNS(SVG, 'svg');
  svg.setAttribute('viewBox', '0 0 24 24');
  svg.setAttribute('class', 'icon');
  svg.setAttribute('aria-hidden', 'true');
  const path = document.createElementNS(SVG, 'path');
  path.setAttribute('d', PATHS[name] ?? '');
  svg.append(path);
  return svg;
}

/** Fills every `data-icon` placeholder under `root`. @param {ParentNode} root */
export function fillIcons(root) {
  for (const slot of root.querySelectorAll('[data-icon]')) slot.replaceChildren(icon(slot.getAttribute('data-icon') ?? ''));
}

/**
 * Shows an icon in a button, replacing only when it is another one.
 * @param {HTMLElement} button
 * @param {string} name
 */
export function setIcon(button, name) {
  if (button.dataset.shown === name) return;
  button.dataset.shown = name;
  button.replaceChildren(icon(name));
}
