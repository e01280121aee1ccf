// The features of the small model: controls to change the visitor's, rows for the model, and the address that keeps them.

import { count, h } from './dom.js';

/**
 * A column of `model/clicks.json`.
 * @typedef {{name: string, label: string, kind: 'visitor' | 'ad' | 'context', type: 'category' | 'number' | 'set' | 'id',
 *   values?: string[], min?: number, max?: number, step?: number, unit?: string}} Column an `id` has no control
 * @typedef {{title: string, values: Record<string, any>}} Ad
 * @typedef {Record<string, any>} Visitor
 */

/** Controls that are always in sight, where there are such columns. */
const FIRST = ['interests', 'device', 'site', 'hour', 'age'];

/** Columns that the reader may change: the ads' are given, and so are numbers that only name somebody. @param {Column[]} columns */
export const asked = (columns) => columns.filter(({ kind, type }) => kind !== 'ad' && type !== 'id');

/**
 * One row of text a candidate, columns in the model's order.
 * @param {Column[]} columns @param {Ad[]} ads @param {Visitor} visitor
 * @param {{separator: string, multi_hot_separator: string}} format
 */
export function rowsOf(columns, ads, visitor, { separator, multi_hot_separator }) {
  const cell = (column, ad) => {
    const value = ad.values[column.name] ?? visitor[column.name] ?? '';
    return Array.isArray(value) ? value.join(multi_hot_separator) : String(value);
  };
  return ads.map((ad) => `${columns.map((column) => cell(column, ad)).join(separator)}\n`).join('');
}

/** The visitor in the address (#device=phone&interests=films,travel), with defaults for what is not there or not known. */
export function visitorFrom(hash, columns, defaults) {
  const given = new URLSearchParams(hash.replace(/^#/, ''));
  const visitor = { ...defaults };
  for (const column of asked(columns)) {
    const text = given.get(column.name);
    if (text === null) continue;
    if (column.type === 'set') visitor[column.name] = column.values.filter((value) => text.split(',').includes(value));
    else if (column.type === 'number') visitor[column.name] = within(Number(text), column, defaults[column.name]);
    else if (column.values.includes(text)) visitor[column.name] = text;
  }
  return visitor;
}

function within(value, { min = 0, max = 100 }, fallback) {
  return Number.isFinite(value) ? Math.min(max, Math.max(min, value)) : fallback;
}

/** @param {Column[]} columns @param {Visitor} visitor */
export function addressOf(columns, visitor) {
  const given = new URLSearchParams();
  for (const { name } of asked(columns)) given.set(name, String(visitor[name]));
  return `#${given.toString().replaceAll('%2C', ',')}`;
}

/** Somebody else, by chance. @param {Column[]} columns @param {Visitor} defaults for what has no control */
export function anybody(columns, defaults) {
  const visitor = { ...defaults };
  const pick = (values) => values[Math.floor(Math.random() * values.length)];
  for (const { name, type, values, min = 0, max = 100 } of asked(columns)) {
    if (type === 'number') visitor[name] = min + Math.floor(Math.random() * (max - min + 1));
    else if (type === 'category') visitor[name] = pick(values);
    else visitor[name] = values.filter(() => Math.random() < 2.5 / values.length);
  }
  return visitor;
}

/**
 * The controls: a select for a category, a slider for numbers, chips for a set.
 * @param {Column[]} columns @param {Visitor} visitor @param {(visitor: Visitor) => void} changed
 */
export function controls(columns, visitor, changed) {
  const readers = new Map();
  const now = () => ({ ...visitor, ...Object.fromEntries([...readers].map(([name, { get }]) => [name, get()])) });
  const listener = () => changed(now());
  const first = [];
  const more = [];
  for (const column of [...asked(columns)].sort((a, b) => place(a) - place(b))) {
    const made = maker(column)(column, visitor[column.name], listener);
    readers.set(column.name, made);
    (FIRST.includes(column.name) ? first : more).push(made.element);
  }
  const folded = h('details', { class: 'more', open: matchMedia('(min-width: 1121px)').matches }, h('summary', {}, 'More about the visit'), h('div', {}, ...more));
  return {
    first,
    more: more.length > 0 ? folded : '',
    /** @param {Visitor} next */
    set(next) {
      for (const [name, { set }] of readers) set(next[name]);
      listener();
    },
  };
}

/** Sets first, then what is always in sight, then choices before sliders. */
const place = ({ name, type }) => (FIRST.includes(name) ? FIRST.indexOf(name) : FIRST.length + (type === 'number' ? 1 : 0));

/** Long categories of plain numbers, such as hours, are easier to slide through. */
function maker({ type, values = [] }) {
  if (type === 'set') return chips;
  if (type === 'number') return slider;
  return values.length > 8 && values.every((value) => value !== '' && Number.isFinite(Number(value))) ? orderedSlider : select;
}

function select({ name, label, values = [] }, value, listener) {
  const box = h('select', { id: `f-${name}`, name, onchange: listener, oninput: listener },
    ...values.map((each) => h('option', { value: each, selected: each === value }, each)));
  const element = h('label', { class: 'field' }, h('span', {}, label), box);
  return { element, get: () => box.value, set: (next) => { box.value = next; } };
}

function slider({ name, label, min = 0, max = 100, step = 1, unit = '' }, value, listener) {
  const shown = h('output', { for: `f-${name}` });
  const box = h('input', { type: 'range', id: `f-${name}`, name, min, max, step });
  const show = () => { shown.textContent = `${count(Number(box.value), Number.isInteger(step) ? 0 : 1)}${unit && ` ${unit}`}`; };
  box.value = value;
  box.addEventListener('input', () => { show(); listener(); });
  show();
  const element = h('label', { class: 'field' }, h('span', {}, label, ' ', shown), box);
  return { element, get: () => Number(box.value), set: (next) => { box.value = next; show(); } };
}

function orderedSlider(column, value, listener) {
  const { values = [] } = column;
  const inner = slider({ ...column, min: 0, max: values.length - 1, step: 1 }, values.indexOf(value), listener);
  const relabel = () => { inner.element.querySelector('output').textContent = values[inner.get()]; };
  inner.element.addEventListener('input', relabel);
  relabel();
  return { element: inner.element, get: () => values[inner.get()], set: (next) => { inner.set(values.indexOf(next)); relabel(); } };
}

function chips({ name, label, values = [] }, value, listener) {
  const boxes = values.map((each) => h('input', { type: 'checkbox', name, value: each, checked: value.includes(each), onchange: listener }));
  const element = h('fieldset', { class: 'field chips' }, h('legend', {}, label),
    h('div', { class: 'chip-row' }, ...boxes.map((box) => h('label', { class: 'chip' }, box, h('span', {}, box.value)))));
  return {
    element,
    get: () => boxes.filter(({ checked }) => checked).map((box) => box.value),
    set: (next) => boxes.forEach((box) => { box.checked = next.includes(box.value); }),
  };
}

/** What the model saw of one candidate: label and value of every column, with its kind. */
export function cellsOf(columns, ad, visitor) {
  return columns.map(({ name, label, kind }) => {
    const value = ad.values[name] ?? visitor[name] ?? '';
    return { kind, label, value: Array.isArray(value) ? value.join(', ') || 'none' : String(value) };
  });
}

