/** JSON as coloured text nodes. No markup is built from the values: they come from other people. */
import { h } from './dom.js';

/** @param {unknown} value @param {string} [indent] @returns {(Node | string)[]} */
export function jsonNodes(value, indent = '') {
  if (Array.isArray(value)) {
    if (!value.length) return ['[]'];
    return wrap('[', ']', value.map((item) => jsonNodes(item, `${indent}  `)), indent);
  }
  if (typeof value === 'object' && value !== null) {
    const entries = Object.entries(value);
    if (!entries.length) return ['{}'];
    return wrap('{', '}', entries.map(([key, item]) => [h('span', { class: 'json-key' }, JSON.stringify(key)), ': ', ...jsonNodes(item, `${indent}  `)]), indent);
  }
  const kind = typeof value === 'string' ? 'string' : typeof value === 'number' ? 'number' : 'word';
  return [h('span', { class: `json-${kind}` }, JSON.stringify(value) ?? 'undefined')];
}

/** @param {string} open @param {string} close @param {(Node | string)[][]} items @param {string} indent */
function wrap(open, close, items, indent) {
  return [`${open}\n`, ...items.flatMap((item, i) => [`${indent}  `, ...item, i < items.length - 1 ? ',\n' : '\n']), indent + close];
}
