// The list of candidates: one bar each, moved to its rank by transforms alone.

import { byId, h, percent, still } from './dom.js';

/** Ends of the scale, of which the smallest that fits is taken. */
const SCALES = [0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.8, 1];

export class RankList {
  #rows = [];
  /** @type {number[]} candidates, the first in rank first */
  #order = [];
  #places = new Int32Array(0);
  #active = 0;
  #scale = 0;

  /**
   * @param {{title: string}[]} ads
   * @param {(candidate: number) => void} chosen told when another candidate is looked at
   */
  constructor(ads, chosen) {
    this.list = byId('ads');
    this.window = byId('window');
    this.chosen = chosen;
    this.#rows = ads.map((ad, candidate) => this.#row(ad, candidate));
    this.#places = new Int32Array(ads.length).fill(-1);
    this.list.replaceChildren(...this.#rows.map(({ element }) => element));
    this.list.onkeydown = (event) => this.#key(event);
    this.observer = new ResizeObserver(() => this.#measure());
    this.observer.observe(this.window);
    this.#measure();
  }

  /** Lets go of the page's elements: another list takes them. */
  close() {
    this.observer.disconnect();
  }

  /** The candidate that is looked at. */
  get active() {
    return this.#active;
  }

  #row(ad, candidate) {
    const rank = h('span', { class: 'rank' });
    const value = h('span', { class: 'p' });
    const bar = h('span', { class: 'bar' });
    const mark = h('span', { class: 'fp32-mark' });
    const element = h('li', {
      class: 'ad', role: 'option', id: `ad-${candidate}`, tabIndex: -1,
      onpointerenter: (event) => event.pointerType === 'mouse' && this.choose(candidate, false),
      onfocus: () => this.choose(candidate, false),
      onclick: () => this.choose(candidate, true),
    }, rank, h('span', { class: 'title', title: ad.title }, ad.title), h('span', { class: 'track', 'aria-hidden': 'true' }, bar, mark), value);
    return { element, rank, value, bar, mark };
  }

  /** Looks at a candidate. @param {number} candidate @param {boolean} focus */
  choose(candidate, focus) {
    const before = this.#rows[this.#active].element;
    before.setAttribute('aria-selected', 'false');
    before.tabIndex = -1;
    this.#active = candidate;
    const { element } = this.#rows[candidate];
    element.setAttribute('aria-selected', 'true');
    element.tabIndex = 0;
    if (focus) {
      element.focus({ preventScroll: true });
      this.#reveal(this.#places[candidate]);
    }
    this.chosen(candidate);
  }

  /**
   * New probabilities: bars and marks change, rows move to their ranks.
   * @param {Float32Array} int4 @param {Float32Array} fp32 @param {number[]} order candidates by INT4, first in rank first
   */
  set(int4, fp32, order) {
    this.#rescale(Math.max(...int4, ...fp32));
    const first = this.#order.length === 0;
    const top = this.window.scrollTop / this.height - 2;
    const bottom = top + this.window.clientHeight / this.height + 4;
    const seen = (place) => place >= top && place <= bottom;
    order.forEach((candidate, place) => {
      const { element, rank, value, bar, mark } = this.#rows[candidate];
      const moves = !first && !still() && (seen(place) || seen(this.#places[candidate]));
      element.classList.toggle('moves', moves);
      element.style.transform = `translateY(${place * this.height}px)`;
      element.setAttribute('aria-posinset', String(place + 1));
      element.setAttribute('aria-setsize', String(order.length));
      bar.style.transform = `scaleX(${(int4[candidate] / this.#scale).toFixed(4)})`;
      mark.style.transform = `translateX(${((fp32[candidate] / this.#scale) * 100).toFixed(2)}%)`;
      rank.textContent = String(place + 1);
      value.textContent = percent(int4[candidate]);
      this.#places[candidate] = place;
    });
    // the elements stay where they are in the document; who listens to the list hears it in this order
    this.list.setAttribute('aria-owns', order.map((candidate) => `ad-${candidate}`).join(' '));
    this.#order = order;
    if (first) this.choose(order[0], false);
  }

  /** Keeps the scale while it fits, so that bars compare from one ranking to the next. */
  #rescale(largest) {
    const fits = SCALES.find((end) => end >= largest * 1.02) ?? 1;
    if (fits <= this.#scale && fits > this.#scale * 0.45) return;
    this.#scale = fits;
    const marks = [0, 0.25, 0.5, 0.75, 1].map((part) => {
      const tick = h('span', {}, `${Number((fits * part * 100).toFixed(2))} %`);
      tick.style.left = `${part * 100}%`;
      return tick;
    });
    byId('axis').replaceChildren(h('span', { class: 'scale' }, ...marks));
  }

  #measure() {
    const height = parseFloat(getComputedStyle(this.list).getPropertyValue('--row'));
    if (height === this.height) return;
    this.height = height;
    this.list.style.height = `${height * this.#rows.length}px`;
    this.#order.forEach((candidate, place) => {
      const { element } = this.#rows[candidate];
      element.classList.remove('moves');
      element.style.transform = `translateY(${place * height}px)`;
    });
  }

  #key(event) {
    const page = Math.max(1, Math.floor(this.window.clientHeight / this.height) - 1);
    const moves = { ArrowDown: 1, ArrowUp: -1, PageDown: page, PageUp: -page, Home: -Infinity, End: Infinity };
    if (!(event.key in moves)) return;
    event.preventDefault();
    const place = this.#places[this.#active] + moves[event.key];
    this.choose(this.#order[Math.max(0, Math.min(this.#order.length - 1, place))], true);
  }

  /** Scrolls the list's own window, never the page. @param {number} place */
  #reveal(place) {
    const top = place * this.height;
    const { scrollTop, clientHeight } = this.window;
    if (top < scrollTop) this.window.scrollTop = top;
    else if (top + this.height > scrollTop + clientHeight) this.window.scrollTop = top + this.height - clientHeight;
  }
}
