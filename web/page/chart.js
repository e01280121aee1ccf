// Two kinds of charts as SVG: lines over epochs, and a histogram of probabilities. Colours come from the style sheet.

import { count, h, s } from './dom.js';

const MARGIN = { top: 14, right: 14, bottom: 34, left: 52 };

/** Round ticks that cover [low, high]. @param {number} low @param {number} high @param {number} wanted */
export function ticks(low, high, wanted) {
  const span = high - low || 1;
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((value) => value >= rough * 0.999) ?? power * 10;
  const first = Math.ceil(low / step - 1e-9);
  const found = [];
  for (let at = first + 0; at * step <= high + step * 1e-9; at += 1) found.push(at * step + 0);
  const digits = Math.max(0, -Math.floor(Math.log10(step) + 1e-9));
  return { values: found, digits: Math.min(4, digits) };
}

/** The part that both charts share: a figure whose SVG is drawn anew when its width changes. */
class Chart {
  /** @param {{title: string, height: number, describe: () => string}} options */
  constructor({ title, height, describe }) {
    this.height = height;
    this.describe = describe;
    this.svg = s('svg', { class: 'chart', role: 'img', height, width: '100%' });
    this.caption = h('figcaption', {}, title);
    this.element = h('figure', { class: 'figure' }, this.caption, this.svg);
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  /** Draws anew, at the present width. */
  draw() {}

  get width() {
    return Math.max(240, Math.round(this.element.clientWidth));
  }

  /** Axes with labels; returns the scales. */
  frame({ x: [x0, x1], y: [y0, y1], xTitle, yTitle = '', xFormat, yFormat }) {
    const { width, height } = this;
    const right = width - MARGIN.right;
    const bottom = height - MARGIN.bottom;
    const x = (value) => MARGIN.left + ((value - x0) / (x1 - x0 || 1)) * (right - MARGIN.left);
    const y = (value) => bottom - ((value - y0) / (y1 - y0 || 1)) * (bottom - MARGIN.top);
    const across = ticks(x0, x1, Math.max(2, Math.floor(width / 90)));
    const up = ticks(y0, y1, 4);
    const nodes = [];
    for (const value of up.values) {
      nodes.push(s('line', { class: 'grid', x1: MARGIN.left, x2: right, y1: y(value), y2: y(value) }));
      nodes.push(s('text', { class: 'tick', x: MARGIN.left - 8, y: y(value) + 4, 'text-anchor': 'end' }, yFormat(value, up.digits)));
    }
    for (const value of across.values) {
      nodes.push(s('text', { class: 'tick', x: x(value), y: bottom + 17, 'text-anchor': 'middle' }, xFormat(value, across.digits)));
    }
    nodes.push(s('line', { class: 'base', x1: MARGIN.left, x2: right, y1: bottom, y2: bottom }));
    nodes.push(s('text', { class: 'axis-title', x: right, y: height - 3, 'text-anchor': 'end' }, xTitle));
    if (yTitle) nodes.push(s('text', { class: 'axis-title', x: MARGIN.left - 44, y: 9 }, yTitle));
    return { nodes, x, y, bottom };
  }

  show(nodes) {
    this.svg.setAttribute('viewBox', `0 0 ${this.width} ${this.height}`);
    this.svg.setAttribute('aria-label', this.describe());
    this.svg.replaceChildren(...nodes);
  }
}

/**
 * A line of a chart: points [x, y], and one of them marked as the best.
 * @typedef {{name: string, points: [number, number][], best?: [number, number] | null, dots?: boolean}} Line
 */

/** Charts made, to tell their parts apart. */
let charts = 0;

/** Lines over epochs. */
export class LineChart extends Chart {
  /** @type {Line[]} */ lines = [];

  /** @param {{title: string, height: number, digits: number, empty: [number, number], least: number, most?: number, top?: number}} options
   *   `empty`: the y range before there are points; `least` and `most`: how much of it is shown, counted from the top; `top`: its highest end */
  constructor(options) {
    super({ ...options, describe: () => describeLines(options.title, this.lines) });
    this.options = options;
    this.epochs = 2;
    this.clip = `clip-${charts += 1}`;
    /** @type {number | null} where the pointer is, in the drawing's units */
    this.pointer = null;
    /** @type {number | null} a height that no line can expect to pass */
    this.ceiling = null;
    this.values = h('span', { class: 'values' });
    this.caption.append(this.values);
    this.svg.addEventListener('pointermove', (event) => this.point(event.clientX - this.svg.getBoundingClientRect().left));
    this.svg.addEventListener('pointerleave', () => this.point(null));
  }

  /** @param {number | null} at */
  point(at) {
    this.pointer = at;
    this.draw();
  }

  /** @param {Line[]} lines */
  set(lines) {
    this.lines = lines;
    const last = Math.max(0, ...lines.flatMap(({ points }) => points.slice(-1).map(([x]) => x)));
    this.epochs = Math.max(2, Math.ceil(last));
    this.draw();
  }

  draw() {
    const { nodes, x, y, bottom } = this.frame({
      x: [0, this.epochs],
      y: this.range(),
      xTitle: 'epochs',
      xFormat: (value, digits) => count(value, digits),
      yFormat: (value, digits) => count(value, Math.max(digits, 2)),
    });
    const [low, high] = this.range();
    nodes.unshift(s('clipPath', { id: this.clip }, s('rect', { x: MARGIN.left, y: MARGIN.top - 6, width: this.width - MARGIN.left, height: bottom - MARGIN.top + 6 })));
    if (this.ceiling !== null && this.ceiling > low && this.ceiling < high) {
      nodes.push(s('line', { class: 'ceiling', x1: x(0), x2: x(this.epochs), y1: y(this.ceiling), y2: y(this.ceiling) }));
    }
    for (const { name, points, best, dots } of this.lines) {
      if (points.length === 0) continue;
      const path = points.map(([px, py]) => `${x(px).toFixed(1)} ${y(py).toFixed(1)}`).join('L');
      nodes.push(s('path', { class: `line ${name}`, d: `M${path}`, 'clip-path': `url(#${this.clip})` }));
      if (dots) points.filter(([, py]) => py >= low).forEach(([px, py]) => nodes.push(s('circle', { class: `dot ${name}`, cx: x(px), cy: y(py), r: 2 })));
      if (best) {
        nodes.push(s('circle', { class: `best ${name}`, cx: x(best[0]), cy: y(best[1]), r: 5 }));
        const above = this.lines.every((line) => !line.best || line.best[1] <= best[1]) ? -11 : 20;
        nodes.push(s('text', { class: `best-label ${name}`, x: x(best[0]), y: y(best[1]) + above, 'text-anchor': 'middle' }, count(best[1], this.options.digits)));
      }
    }
    this.show([...nodes, ...this.pointed(x, y, bottom)]);
  }

  /** The points nearest to the pointer, with their values in the caption. */
  pointed(x, y, bottom) {
    const { pointer, lines } = this;
    const near = pointer === null ? [] : lines.filter(({ points }) => points.length > 0).map(({ name, points }) => {
      const distance = (point) => Math.abs(x(point[0]) - pointer);
      return { name, point: points.reduce((best, each) => (distance(each) < distance(best) ? each : best)) };
    });
    this.values.replaceChildren(...(near.length === 0 ? [] : [`epoch ${count(near[0].point[0], 2)}:`]),
      ...near.reverse().map(({ name, point }) => h('span', { class: `value ${name}` }, count(point[1], this.options.digits))));
    if (near.length === 0) return [];
    const at = x(near[0].point[0]);
    return [s('line', { class: 'pointer', x1: at, x2: at, y1: MARGIN.top, y2: bottom }),
      ...near.map(({ name, point: [px, py] }) => s('circle', { class: `dot ${name}`, cx: x(px), cy: y(py), r: 4 }))];
  }

  /** @returns {[number, number]} */
  range() {
    const values = this.lines.flatMap(({ points }) => points.map(([, y]) => y));
    if (values.length < 2) return this.options.empty;
    const high = Math.min(this.options.top ?? Infinity, Math.max(...values));
    const low = Math.min(high, Math.max(Math.min(...values), high - (this.options.most ?? Infinity)));
    const pad = Math.max((high - low) * 0.14, (this.options.least - (high - low)) / 2);
    return [low - pad, high + pad];
  }
}

function describeLines(title, lines) {
  const said = lines.filter(({ points }) => points.length > 0).map(({ name, points }) => {
    const [x, y] = points[points.length - 1];
    return `${name.toUpperCase()} ${count(y, 4)} after ${count(x, 1)} epochs`;
  });
  return `${title}. ${said.length > 0 ? said.join('; ') : 'Nothing yet'}.`;
}

/** How many rows got which probability. */
export class Histogram extends Chart {
  /** @type {number[]} */ all = Array(100).fill(0);
  /** @type {number[]} */ clicked = Array(100).fill(0);

  /** @param {{title: string, height: number}} options */
  constructor(options) {
    super({ ...options, describe: () => this.said() });
  }

  /** @param {Uint32Array} all rows in each bin @param {Uint32Array} clicked those of them with a click */
  set(all, clicked) {
    this.all = Array.from(all);
    this.clicked = Array.from(clicked);
    this.draw();
  }

  said() {
    const most = this.all.indexOf(Math.max(...this.all));
    return `Histogram of click probabilities; most rows are near ${most + 0.5} %.`;
  }

  draw() {
    const used = this.all.reduce((last, rows, bin) => (rows > 0 ? bin : last), 0);
    const bins = Math.max(20, Math.ceil((used + 1) / 10) * 10);
    const most = Math.max(1, ...this.all);
    const { nodes, x, y, bottom } = this.frame({
      x: [0, bins],
      y: [0, most * 1.05],
      xTitle: 'click probability',
      yTitle: 'rows',
      xFormat: (value) => `${count(value)} %`,
      yFormat: (value) => (value >= 1e6 ? `${count(value / 1e6, 1)} M` : value >= 1e4 ? `${count(value / 1e3)} k` : count(value)),
    });
    for (let bin = 0; bin < bins; bin += 1) {
      const left = x(bin) + 0.5;
      const width = Math.max(1, x(bin + 1) - x(bin) - 1);
      if (this.all[bin]) nodes.push(s('rect', { class: 'bin', x: left, width, y: y(this.all[bin]), height: bottom - y(this.all[bin]) }));
      if (this.clicked[bin]) nodes.push(s('rect', { class: 'bin clicked', x: left, width, y: y(this.clicked[bin]), height: bottom - y(this.clicked[bin]) }));
    }
    this.show(nodes);
  }
}
