// Making elements, and writing numbers.

/**
 * An element. Properties that begin with "on" are listeners, `class` and attributes with a dash are attributes,
 * `data` fills the dataset; all else is set as a property. Children that are null or false are left out.
 * @param {string} tag
 * @param {Record<string, any>} [properties]
 * @param {...(Node | string | null | false | undefined)} children
 * @returns {any}
 */
export function h(tag, properties = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (value === undefined || value === null) continue;
    if (name.startsWith('on')) element.addEventListener(name.slice(2), value);
    else if (name === 'data') Object.assign(element.dataset, value);
    else if (name === 'class' || name === 'role' || name === 'for' || name.includes('-')) element.setAttribute(name, value);
    else element[name] = value;
  }
  for (const child of children) {
    if (child !== null && child !== undefined && child !== false) element.append(child);
  }
  return element;
}

const SVG = 'http://www.w3.org/2000/svg';

/**
 * An SVG element with attributes.
 * @param {string} tag
 * @param {Record<string, string | number>} [attributes]
 * @param {...(Node | string)} children
 * @returns {SVGElement}
 */
export function s(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, String(value));
  element.append(...children);
  return element;
}

/** @param {string} id @returns {any} */
export const byId = (id) => document.getElementById(id);

const number = (digits) => new Intl.NumberFormat('en', { maximumFractionDigits: digits, minimumFractionDigits: digits });
const fixed = [0, 1, 2, 3, 4].map(number);

/** 12345.6 as "12,346", or with digits after the point. @param {number} value @param {number} [digits] */
export const count = (value, digits = 0) => fixed[digits].format(value);

/** A probability as "3.4 %". @param {number} value */
export const percent = (value) => `${fixed[1].format(value * 100)} %`;

/** An AUC or a loss: four digits. @param {number | null | undefined} value */
export const score = (value) => (typeof value === 'number' && Number.isFinite(value) ? fixed[4].format(value) : 'none');

/** Bytes in decimal units: "270 MB", "1.1 MB", "64 KB". @param {number} value */
export function bytes(value) {
  const units = ['bytes', 'KB', 'MB', 'GB', 'TB'];
  let unit = 0;
  while (value >= 999.5 && unit < units.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${fixed[unit === 0 || value >= 9.95 ? 0 : 1].format(value)} ${units[unit]}`;
}

/** Bytes in binary units, as limits are given: "1 GiB". @param {number} value */
export function binary(value) {
  if (value >= 1 << 30) return `${count(value / 2 ** 30, value % 2 ** 30 < 2 ** 27 || value % 2 ** 30 > 2 ** 30 - 2 ** 27 ? 0 : 1)} GiB`;
  return `${count(value / 2 ** 20)} MiB`;
}

/** Milliseconds: "0.42 ms", "12 ms", "1.3 s". @param {number} value */
export function duration(value) {
  if (value >= 1000) return `${count(value / 1000, 1)} s`;
  return `${count(value, value < 1 ? 2 : value < 20 ? 1 : 0)} ms`;
}

/** Large counts shortened: "33.8 million". @param {number} value */
export function large(value) {
  if (value >= 1e9) return `${count(value / 1e9, 1)} billion`;
  return value >= 1e6 ? `${count(value / 1e6, 1)} million` : count(value);
}

/** "1 row", "2 rows". @param {number} value @param {string} noun */
export const plural = (value, noun) => `${large(value)} ${noun}${value === 1 ? '' : 's'}`;

/** Offers bytes as a file. @param {string} name @param {Blob} blob */
export function download(name, blob) {
  const link = h('a', { href: URL.createObjectURL(blob), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** A device's name without what stands in brackets for programs. @param {string} name */
export const deviceName = (name) => name.replace(/\s*\(BrowserWebGpu.*\)$/, '') || 'the GPU';

/** True where the reader asks for less movement. */
export const still = () => matchMedia('(prefers-reduced-motion: reduce)').matches;
