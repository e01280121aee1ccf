// Small parts that several sections use: notices, progress with cancel, a place to drop files.

import { byId, h } from './dom.js';

/**
 * One clear sentence above everything, and ways on.
 * @param {string} key one notice a key: a new one replaces it
 * @param {string} text
 * @param {{label: string, act: () => void}[]} [ways]
 */
export function notice(key, text, ways = []) {
  clearNotice(key);
  const buttons = ways.map(({ label, act }) => h('button', { type: 'button', onclick: () => { clearNotice(key); act(); } }, label));
  const close = h('button', { type: 'button', class: 'quiet', 'aria-label': 'Close this notice', onclick: () => clearNotice(key) }, '×');
  byId('notices').append(h('div', { class: 'notice', role: 'alert', id: `notice-${key}` }, h('p', {}, text), ...buttons, close));
}

/** @param {string} key */
export const clearNotice = (key) => byId(`notice-${key}`)?.remove();

/** First letter in capitals, a full stop at the end: the library's messages as sentences. File names stay as they are. @param {string} text */
export function sentence(text) {
  const said = text.trim();
  const name = /^\S*[._]\S+/.test(said);
  return (name ? said.charAt(0) : said.charAt(0).toUpperCase()) + said.slice(1) + (/[.!?…]$/.test(said) ? '' : '.');
}

/** A bar, a line of text and a cancel button, whose room is kept while nothing goes on. */
export class Progress {
  /** @type {AbortController | null} */ #controller = null;

  constructor() {
    this.bar = h('progress', { max: 1, value: 0, 'aria-label': 'Progress' });
    this.text = h('p', { class: 'progress-text', role: 'status' });
    this.button = h('button', { type: 'button', onclick: () => this.cancel() }, 'Cancel');
    this.element = h('div', { class: 'progress' }, this.bar, this.text, this.button);
    this.end('');
  }

  get busy() {
    return this.#controller !== null;
  }

  /** Shows the bar. @param {string} text @returns {AbortSignal} aborted by the button */
  start(text) {
    this.#controller = new AbortController();
    this.text.setAttribute('aria-live', 'polite');
    this.element.classList.add('on');
    this.element.classList.remove('bad');
    this.bar.value = 0;
    this.text.textContent = text;
    return this.#controller.signal;
  }

  /** @param {number} fraction @param {string} text */
  set(fraction, text) {
    if (this.#controller?.signal.aborted) return;
    // figures that change all the time are not read out
    this.text.setAttribute('aria-live', 'off');
    this.bar.value = fraction;
    this.text.textContent = text;
  }

  /** Asks for the end; it comes with the piece under way. */
  cancel() {
    if (!this.#controller) return;
    this.text.textContent = 'Stopping…';
    this.#controller.abort();
  }

  /**
   * Hides the bar and leaves a last line, with a way on where there is one.
   * @param {string} text @param {boolean} [bad] @param {{label: string, act: () => void} | null} [way]
   */
  end(text, bad = false, way = null) {
    this.#controller = null;
    this.text.setAttribute('aria-live', 'polite');
    this.element.classList.remove('on');
    this.element.classList.toggle('bad', bad);
    this.text.replaceChildren(text, ...(way ? [' ', h('button', { type: 'button', class: 'link', onclick: way.act }, way.label)] : []));
  }
}

/**
 * A place to drop one file, with a button that opens the file dialog.
 * @param {{text: string, button: string, accept: string, taken: (file: File) => void}} options
 */
export function dropZone({ text, button, accept, taken }) {
  const input = h('input', { type: 'file', accept, class: 'sr', tabIndex: -1, 'aria-label': button });
  input.addEventListener('change', () => {
    if (input.files[0]) taken(input.files[0]);
    input.value = '';
  });
  const open = h('button', { type: 'button', onclick: () => input.click() }, button);
  const zone = h('div', { class: 'drop' }, h('p', {}, text), open, input);
  zone.addEventListener('dragover', (event) => {
    event.preventDefault();
    zone.classList.add('over');
  });
  zone.addEventListener('dragleave', () => zone.classList.remove('over'));
  zone.addEventListener('drop', (event) => {
    event.preventDefault();
    event.stopPropagation();
    zone.classList.remove('over');
    if (event.dataTransfer.files[0]) taken(event.dataTransfer.files[0]);
  });
  return zone;
}

/** A figure with its name: one of a row of results. @param {string} name @param {string} value @param {string} [more] */
export const figure = (name, value, more = '') => h('div', { class: 'fact' },
  h('dt', {}, name), h('dd', {}, h('b', {}, value), more && h('span', {}, ` ${more}`)));
