// A small editor for WGSL: line numbers, colours, error markers. Tab indents, Escape leaves.

import { h } from './dom.js';

const WORDS = /(\/\/[^\n]*|\/\*[\s\S]*?\*\/)|(@[a-z_]+)|\b(fn|let|var|const|override|struct|return|if|else|for|while|loop|break|continue|switch|case|default|enable|alias|true|false|discard)\b|\b(bool|[iuf](?:16|32)|vec[234](?:[iufh]|\b)|mat[234]x[234][fh]?|array|atomic|ptr|storage|uniform|workgroup|private|function|read|read_write|texture_2d|texture_storage_2d)\b|\b(0x[0-9a-fA-F]+[iu]?|\d+\.?\d*(?:[eE][-+]?\d+)?[iufh]?)\b/g;
const CLASSES = ['note', 'attribute', 'word', 'type', 'digit'];

/** A text as coloured spans. @param {string} text @returns {(string | HTMLElement)[]} */
function coloured(text) {
  const parts = [];
  let from = 0;
  for (const found of text.matchAll(WORDS)) {
    if (found.index > from) parts.push(text.slice(from, found.index));
    const kind = CLASSES[found.slice(1).findIndex((group) => group !== undefined)];
    parts.push(h('span', { class: kind }, found[0]));
    from = found.index + found[0].length;
  }
  parts.push(text.slice(from));
  return parts;
}

export class Editor {
  /** @type {Map<number, string>} line and message */
  #errors = new Map();
  #lines = 0;

  /** @param {{changed: (text: string) => void, leave: () => void, run: () => void}} told */
  constructor({ changed, leave, run }) {
    this.numbers = h('div', { class: 'numbers', 'aria-hidden': 'true' });
    this.paint = h('pre', { class: 'paint', 'aria-hidden': 'true' });
    this.area = h('textarea', {
      id: 'lab-text', spellcheck: false, autocapitalize: 'off', autocomplete: 'off', wrap: 'off',
      'aria-label': 'WGSL of the kernel. Tab indents, Escape leaves the editor, Control and Enter runs it.',
      oninput: () => { this.#draw(); changed(this.area.value); },
      onscroll: () => this.#scrolled(),
      onkeydown: (event) => this.#key(event, leave, run),
    });
    this.element = h('div', { class: 'editor' }, this.numbers, h('div', { class: 'sheet' }, this.paint, this.area));
  }

  get text() {
    return this.area.value;
  }

  set text(text) {
    this.area.value = text;
    this.area.scrollTop = 0;
    this.area.scrollLeft = 0;
    this.mark([]);
    this.#draw();
  }

  /** Marks lines. @param {{line: number, message: string}[]} errors */
  mark(errors) {
    this.#errors = new Map(errors.map(({ line, message }) => [line, message]));
    this.#lines = 0;
    this.#draw();
  }

  /** Puts the cursor there and shows the line. @param {number} line from 1 @param {number} column from 1 */
  show(line, column) {
    const before = this.area.value.split('\n').slice(0, line - 1).reduce((sum, each) => sum + each.length + 1, 0);
    const at = Math.min(this.area.value.length, before + Math.max(0, column - 1));
    this.area.focus();
    this.area.setSelectionRange(at, at);
    this.reveal(line);
  }

  /** Scrolls a line into the middle. @param {number} line from 1 */
  reveal(line) {
    const height = parseFloat(getComputedStyle(this.area).lineHeight);
    this.area.scrollTop = Math.max(0, (line - 1) * height - this.area.clientHeight / 2);
    this.#scrolled();
  }

  #draw() {
    this.paint.replaceChildren(...coloured(this.area.value), '\n');
    const lines = this.area.value.split('\n').length;
    if (lines !== this.#lines) {
      this.#lines = lines;
      this.numbers.replaceChildren(h('div', {}, ...Array.from({ length: lines }, (_, at) => {
        const message = this.#errors.get(at + 1);
        return h('span', { class: message ? 'wrong' : '', title: message ?? '' }, String(at + 1));
      })));
    }
    this.#scrolled();
  }

  #scrolled() {
    const { scrollTop, scrollLeft } = this.area;
    this.paint.style.transform = `translate(${-scrollLeft}px, ${-scrollTop}px)`;
    if (this.numbers.firstChild) this.numbers.firstChild.style.transform = `translateY(${-scrollTop}px)`;
  }

  #key(event, leave, run) {
    if (event.key === 'Escape') {
      event.preventDefault();
      leave();
    } else if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) {
      event.preventDefault();
      run();
    } else if (event.key === 'Tab' && !event.shiftKey) {
      event.preventDefault();
      const { selectionStart, value } = this.area;
      const column = selectionStart - (value.lastIndexOf('\n', selectionStart - 1) + 1);
      // the only way that keeps the browser's undo
      document.execCommand('insertText', false, ' '.repeat(4 - (column % 4)));
    }
  }
}
