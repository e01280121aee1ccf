// Part 3: FP32 and a rounded model trained in turns on the same clicks, with live curves.

import { byId, count, download, h, large, score } from './dom.js';
import { Cancelled } from './engine.js';
import { LineChart } from './chart.js';
import { sentence } from './widgets.js';
import { Curve, story } from './curves.js';

/** What the controls begin with: a learning rate, and steps between two refreshes of the scales. */
const RATE = 0.01;
const PERIOD = 10_000;
/** Epochs after which training pauses by itself. */
const EPOCHS = 12;

export class Training {
  /** @type {import('./engine.js').Engine} */ engine;
  /** @type {AbortController | null} */ #running = null;
  #loaded = false;
  #packing = false;
  #goal = EPOCHS;

  /** @param {(file: Uint8Array, note: string) => Promise<void>} rankWith puts a packed model into the ranking above */
  constructor(rankWith) {
    this.rankWith = rankWith;
    this.#build();
    this.#clear();
  }

  #build() {
    this.bits = h('select', { id: 'train-bits', onchange: () => this.reset() },
      ...[2, 4, 8].map((bits) => h('option', { value: bits, selected: bits === 4 }, `INT${bits}`)));
    this.period = h('input', { type: 'number', id: 'train-period', min: 1, max: 1_000_000, value: PERIOD, onchange: () => this.reset() });
    this.rateShown = h('output', { for: 'train-rate' });
    this.rate = h('input', { type: 'range', id: 'train-rate', min: -3.5, max: -0.5, step: 0.05, value: Math.log10(RATE), oninput: () => this.#rated() });
    this.go = h('button', { type: 'button', class: 'primary', id: 'train-go', onclick: () => this.#toggle() }, 'Train');
    this.again = h('button', { type: 'button', id: 'train-reset', onclick: () => this.reset() }, 'Start over');
    this.save = h('button', { type: 'button', id: 'train-save', onclick: () => this.#packed((file) => download(`trained-here.${this.#name().toLowerCase()}.safetensors`, new Blob([file]))) }, 'Download the packed model');
    this.use = h('button', { type: 'button', id: 'train-use', onclick: () => this.#packed((file, epoch) => this.rankWith(file, `trained here for ${count(epoch, 1)} epochs`)) }, 'Rank with it above');
    this.state = h('p', { class: 'train-state', role: 'status' });
    this.bar = h('progress', { max: EPOCHS, value: 0, 'aria-label': 'Epochs trained' });
    this.story = h('p', { class: 'story', id: 'story' });
    this.lossChart = new LineChart({ title: 'Training loss, smoothed', height: 250, digits: 4, empty: [0.3, 0.7], least: 0.02, top: 1 });
    this.aucChart = new LineChart({ title: 'AUC on clicks it never trained on', height: 250, digits: 4, empty: [0.5, 0.8], least: 0.01, most: 0.1 });
    byId('train-body').replaceChildren(
      h('div', { class: 'train-bar' }, this.go, this.again,
        h('label', { class: 'field' }, h('span', {}, 'Learning rate ', this.rateShown), this.rate),
        h('label', { class: 'field' }, h('span', {}, 'Rounded to'), this.bits),
        h('label', { class: 'field' }, h('span', {}, 'New scales every … steps'), this.period)),
      this.bar, this.state,
      h('p', { class: 'legend' }, h('span', { class: 'key line int4' }), this.rounded = h('span', {}, 'INT4'), h('span', { class: 'key line fp32' }), 'FP32 ', h('span', { class: 'best-key' }), 'best so far', this.most = h('span', { class: 'most' })),
      h('div', { class: 'two' }, this.lossChart.element, this.aucChart.element),
      this.story,
      h('div', { class: 'buttons' }, this.save, this.use));
  }

  /** A new engine: nothing is loaded in it. @param {import('./engine.js').Engine} engine */
  attach(engine) {
    this.engine = engine;
    this.#running = null;
    this.#loaded = false;
    this.#clear();
  }

  #clear() {
    this.curves = { int4: new Curve(), fp32: new Curve() };
    this.#ceiling(null);
    this.epoch = 0;
    /** True after an error: the weights may be no numbers any more. */
    this.broken = false;
    this.state.classList.remove('bad');
    /** @type {Node[]} the last turn's figures */
    this.told = [];
    this.#goal = EPOCHS;
    this.bar.max = EPOCHS;
    this.bar.value = 0;
    this.state.textContent = 'Not started.';
    this.#rateText();
    this.#draw();
    this.#buttons();
  }

  #settings() {
    return { bits: Number(this.bits.value), period: Math.max(1, Math.round(Number(this.period.value)) || PERIOD), learning_rate: this.learningRate };
  }

  get learningRate() {
    return Number((10 ** Number(this.rate.value)).toPrecision(2));
  }

  #rateText() {
    this.rateShown.textContent = String(this.learningRate);
  }

  #rated() {
    this.#rateText();
    if (this.#loaded) this.engine.call('train.rate', { value: this.learningRate }).catch(() => {});
  }

  #buttons() {
    const running = this.#running !== null;
    // figures that change all the time are not read out
    this.state.setAttribute('aria-live', running ? 'off' : 'polite');
    this.go.disabled = this.broken || this.#packing;
    this.go.textContent = running ? 'Pause' : this.epoch > 0 ? 'Train on' : 'Train';
    this.again.disabled = !running && !this.broken && this.epoch === 0;
    this.save.disabled = running || this.#packing || this.broken || this.epoch === 0;
    this.use.disabled = this.save.disabled;
  }

  #toggle() {
    if (this.#running) this.#running.abort();
    else this.train();
  }

  /** Pauses, and forgets what was learned. */
  async reset() {
    this.#running?.abort();
    await this.finished;
    this.#loaded = false;
    this.#clear();
  }

  /** Trains until paused. */
  train() {
    this.finished = this.#train();
    return this.finished;
  }

  async #train() {
    const { engine } = this;
    const controller = new AbortController();
    this.#running = controller;
    this.#buttons();
    try {
      if (!this.#loaded) {
        this.state.textContent = 'Loading both models…';
        const facts = await engine.call('train.load', { settings: this.#settings() }, { progress: (text) => { this.state.textContent = text; } });
        this.batch = facts.settings.batch;
        this.#ceiling(facts.best.auc);
        this.#loaded = true;
      }
      if (this.epoch >= this.#goal) this.#goal = Math.ceil(this.epoch) + EPOCHS;
      this.bar.max = this.#goal;
      await engine.call('train.run', { epochs: this.#goal }, { signal: controller.signal, progress: (turn) => this.#turn(turn) });
      this.#done(`${count(this.epoch, 1)} epochs done.`);
    } catch (error) {
      if (engine !== this.engine) return;
      if (error instanceof Cancelled) this.#done(`Paused after ${count(this.epoch, 1)} epochs.`);
      else this.#done(sentence(error.message), true);
    }
  }

  /** What nobody can beat on these clicks: they are drawn from probabilities that are known. @param {number | null} auc */
  #ceiling(auc) {
    this.aucChart.ceiling = auc;
    this.most.textContent = auc === null ? '' : `no model can expect more than ${score(auc)} here`;
  }

  #done(text, bad = false) {
    this.#running = null;
    this.broken ||= bad;
    this.state.replaceChildren(h('span', {}, text), ...(bad ? [] : this.told));
    this.state.classList.toggle('bad', bad);
    this.#draw();
    this.#buttons();
  }

  #turn({ int4, fp32, evaluated }) {
    this.epoch = int4.epoch;
    this.bar.value = int4.epoch;
    this.curves.int4.trained(int4);
    this.curves.fp32.trained(fp32);
    if (evaluated) {
      this.curves.int4.evaluated(int4.epoch, evaluated.int4.auc);
      this.curves.fp32.evaluated(fp32.epoch, evaluated.fp32.auc);
    }
    const speed = (curve) => `${large(Math.round(curve.speed * this.batch))} samples/s`;
    const auc = ({ auc }) => (auc.length > 0 ? `, AUC ${score(auc[auc.length - 1][1])}` : '');
    this.told = [
      h('span', {}, `${count(int4.step)} steps each`),
      h('span', {}, `${this.#name()} ${speed(this.curves.int4)}${auc(this.curves.int4)}`),
      h('span', {}, `FP32 ${speed(this.curves.fp32)}${auc(this.curves.fp32)}`)];
    this.state.replaceChildren(h('span', {}, `Epoch ${count(int4.epoch, 1)}`), ...this.told);
    this.#draw();
  }

  #name() {
    return `INT${this.bits.value}`;
  }

  #draw() {
    const { int4, fp32 } = this.curves;
    this.lossChart.set([{ name: 'fp32', points: fp32.loss() }, { name: 'int4', points: int4.loss() }]);
    this.aucChart.set([
      { name: 'fp32', points: fp32.auc, best: fp32.best, dots: true },
      { name: 'int4', points: int4.auc, best: int4.best, dots: true },
    ]);
    this.rounded.textContent = this.#name();
    this.story.textContent = story(int4, fp32, this.#name());
  }

  /** Packs the rounded model and hands it on. Where handing it on fails, the training goes on. @param {(file: Uint8Array, epoch: number) => any} give */
  async #packed(give) {
    const { engine, curves, epoch } = this;
    this.#packing = true;
    this.#buttons();
    let file = null;
    try {
      file = await engine.call('train.pack');
      await give(file, epoch);
    } catch (error) {
      // another engine, or another training, has begun meanwhile
      const same = engine === this.engine && curves === this.curves && !(error instanceof Cancelled);
      if (same) this.#done(sentence(error.message), file === null);
    }
    this.#packing = false;
    this.#buttons();
  }
}
