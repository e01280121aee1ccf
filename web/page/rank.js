// Part 1: the small model ranks 128 ads for a visitor, in INT4 and in FP32, whenever a control changes.

import { byId, count, duration, h, percent } from './dom.js';
import { addressOf, anybody, cellsOf, controls, rowsOf, visitorFrom } from './features.js';
import { RankList } from './ranklist.js';

/** Rankings over which times are told: the median of the last ones. */
const KEPT = 9;
const KINDS = { ad: 'The ad', visitor: 'The visitor', context: 'The moment' };

/** Candidates by probability, ties by their number. @param {Float32Array} probabilities */
export const ordered = (probabilities) => Array.from(probabilities.keys()).sort((a, b) => probabilities[b] - probabilities[a] || a - b);

const median = (values) => [...values].sort((a, b) => a - b)[values.length >> 1];

export class Ranking {
  /** @type {number[]} */ #int4_ms = [];
  /** @type {number[]} */ #fp32_ms = [];
  #busy = false;
  #stale = false;
  /** @type {{int4: Float32Array, fp32: Float32Array} | null} */
  scores = null;

  /**
   * @param {import('./engine.js').Engine} engine
   * @param {{model: any, int4: any}} loaded
   * @param {(error: Error) => void} failed
   * @param {any} [visitor] who was ranked for before, on another device; else the address says who
   */
  constructor(engine, { model, int4 }, failed, visitor = visitorFrom(location.hash, model.columns, model.visitor)) {
    this.engine = engine;
    this.columns = model.columns;
    this.ads = model.ads;
    this.format = int4.columns;
    this.failed = failed;
    this.visitor = visitor;
    const made = controls(model.columns, this.visitor, (visitor) => this.#changed(visitor));
    const buttons = h('div', { class: 'buttons' },
      h('button', { type: 'button', onclick: () => made.set(anybody(this.columns, model.visitor)) }, 'Someone else'),
      h('button', { type: 'button', onclick: () => made.set(model.visitor) }, 'Reset'),
      h('button', { type: 'button', onclick: (event) => this.#copy(event.currentTarget) }, 'Copy link'));
    byId('visitor').replaceChildren(...made.first, buttons, made.more);
    byId('visitor').onsubmit = (event) => event.preventDefault();
    this.list = new RankList(this.ads, (candidate) => this.#show(candidate));
    this.#begin();
  }

  /** The first ranking warms caches and pipelines up; what is told is the time of those after it. */
  async #begin() {
    await this.rank();
    this.#int4_ms = [];
    this.#fp32_ms = [];
    await this.rank();
  }

  /** Lets go of the page's elements. */
  close() {
    this.list.close();
  }

  #changed(visitor) {
    this.visitor = visitor;
    history.replaceState(null, '', addressOf(this.columns, visitor));
    this.rank();
  }

  /** The rows that the model ranks for the visitor as he is now. */
  rows() {
    return rowsOf(this.columns, this.ads, this.visitor, this.format);
  }

  /** Ranks again: at once, or as soon as the ranking under way is done. Those between are left out. */
  async rank() {
    if (this.#busy) {
      this.#stale = true;
      return;
    }
    this.#busy = true;
    try {
      do {
        this.#stale = false;
        const found = await this.engine.call('rank.run', { rows: this.rows() });
        this.#set(found);
      } while (this.#stale);
    } catch (error) {
      this.failed(error);
    } finally {
      this.#busy = false;
    }
  }

  #set({ int4, fp32, int4_ms, fp32_ms }) {
    if (int4.length !== this.ads.length) throw new Error(`the model ranked ${int4.length} of ${this.ads.length} ads: its columns are not this page’s`);
    this.scores = { int4, fp32 };
    this.#int4_ms = [...this.#int4_ms, int4_ms].slice(-KEPT);
    this.#fp32_ms = [...this.#fp32_ms, fp32_ms].slice(-KEPT);
    const small = ordered(int4);
    const full = ordered(fp32);
    this.fullRanks = new Map(full.map((candidate, place) => [candidate, place + 1]));
    this.ranks = new Map(small.map((candidate, place) => [candidate, place + 1]));
    this.list.set(int4, fp32, small);
    const top = new Set(full.slice(0, 10));
    const same = small.slice(0, 10).filter((candidate) => top.has(candidate)).length;
    byId('timing').replaceChildren(
      h('span', { class: 'key int4' }), 'INT4 ', h('b', {}, duration(median(this.#int4_ms))),
      h('span', { class: 'key fp32' }), 'FP32 ', h('b', {}, duration(median(this.#fp32_ms))), ` for ${count(this.ads.length)} ads`);
    byId('same').replaceChildren('top ten: ', h('b', {}, same === 10 ? 'the same ads' : `${same} of 10 the same`));
    this.#show(this.list.active);
  }

  /** What the model saw of one candidate, and what it made of it. */
  #show(candidate) {
    if (!this.scores) return;
    const ad = this.ads[candidate];
    const cells = cellsOf(this.columns, ad, this.visitor);
    const line = (name, key, p, rank) => h('p', { class: `verdict ${key}` },
      h('span', { class: `key ${key}` }), h('span', {}, name), h('b', {}, percent(p)), h('span', {}, `rank ${rank}`));
    const groups = Object.entries(KINDS).map(([kind, title]) => {
      const own = cells.filter((cell) => cell.kind === kind);
      return own.length > 0 && h('div', { class: 'group' }, h('h4', {}, title),
        h('dl', {}, ...own.flatMap(({ label, value }) => [h('dt', {}, label), h('dd', {}, value)])));
    });
    byId('seen').replaceChildren(
      h('p', { class: 'eyebrow' }, 'What the model saw'),
      h('h3', {}, ad.title),
      line('INT4', 'int4', this.scores.int4[candidate], this.ranks.get(candidate)),
      line('FP32', 'fp32', this.scores.fp32[candidate], this.fullRanks.get(candidate)),
      ...groups);
  }

  async #copy(button) {
    history.replaceState(null, '', addressOf(this.columns, this.visitor));
    const before = button.textContent;
    try {
      await navigator.clipboard.writeText(location.href);
      button.textContent = 'Copied';
    } catch {
      button.textContent = 'It is in the address';
    }
    setTimeout(() => { button.textContent = before; }, 1600);
  }
}
