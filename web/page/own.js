// Part 2: the visitor's own packed model, from a file, an address or what was kept, and rows scored with it.

import { byId, bytes, count, deviceName, download, duration, h, large, percent, plural, score } from './dom.js';
import { Cancelled } from './engine.js';
import { Histogram } from './chart.js';
import { Progress, dropZone, figure, sentence } from './widgets.js';

/** Messages that are about the device rather than the file. */
const DEVICE = /\b(device|adapter|GPU|binding|bindings|buffer|memory)\b/i;

export class OwnModel {
  /** @type {import('./engine.js').Engine} */ engine;
  #open = false;

  /**
   * @param {() => Promise<File>} example rows for the small model, for who has none at hand
   * @param {() => Promise<void>} useCpu starts the page anew on the CPU engine
   */
  constructor(example, useCpu) {
    this.example = example;
    this.useCpu = useCpu;
    this.loading = new Progress();
    this.scoring = new Progress();
    this.facts = h('div', { class: 'model-facts' });
    this.kept = h('div', { class: 'kept' });
    this.address = h('input', { type: 'text', inputMode: 'url', placeholder: 'https://…/model.safetensors', 'aria-label': 'Address of a packed model', id: 'own-url', spellcheck: false });
    byId('own-model').replaceChildren(
      h('h3', {}, 'The model'),
      dropZone({ text: 'Drop a packed .safetensors here', button: 'Choose a model…', accept: '.safetensors', taken: (file) => this.open({ file }, file.name) }),
      h('form', { class: 'url', onsubmit: (event) => this.#address(event) }, this.address, h('button', { type: 'submit' }, 'Fetch')),
      h('p', { class: 'hint' }, 'No model at hand? ', h('button', { type: 'button', class: 'link', id: 'own-small', onclick: () => this.open({ url: new URL('model/clicks.int4.safetensors', location.href.split('#')[0]).href }, 'the small model') }, 'Take the small one from above'), '.'),
      this.loading.element, this.facts, this.kept);
    this.rowsZone = dropZone({ text: 'Drop rows here: .tsv, .csv or .txt, also .gz', button: 'Choose rows…', accept: '.tsv,.csv,.txt,.gz', taken: (file) => this.score(file) });
    this.try = h('button', { type: 'button', class: 'link', id: 'own-example', onclick: () => this.#example() }, 'score 5,000 clicks it never saw');
    this.layout = h('p', { class: 'hint' }, 'Rows have the columns that the model was trained on; labels are welcome.');
    byId('own-rows').replaceChildren(h('h3', {}, 'The rows'), this.rowsZone, this.layout,
      h('p', { class: 'hint try' }, 'For the small model: ', this.try, '.'), this.scoring.element);
    this.#disable(true);
  }

  /** A new engine: nothing is open in it. @param {import('./engine.js').Engine} engine */
  attach(engine) {
    this.engine = engine;
    this.#open = false;
    this.facts.replaceChildren();
    byId('own-results').replaceChildren();
    this.loading.end('');
    this.scoring.end('');
    this.#disable(true);
    this.#listed(engine.call('cache.list'));
  }

  #disable(disabled) {
    for (const button of byId('own-rows').querySelectorAll('button')) button.disabled = disabled && !this.scoring.element.contains(button);
  }

  async #example() {
    try {
      this.score(await this.example());
    } catch (error) {
      this.scoring.end(sentence(error.message), true);
    }
  }

  #address(event) {
    event.preventDefault();
    const url = this.address.value.trim();
    if (url) this.open({ url }, url.split('/').pop());
    else this.address.focus();
  }

  /** Opens a model. @param {{file?: File, url?: string, kept?: string}} given @param {string} name */
  async open(given, name) {
    if (this.loading.busy) return;
    this.scoring.cancel();
    const signal = this.loading.start(`Opening ${name}…`);
    const began = performance.now();
    const progress = ({ done, size, from }) => {
      const speed = done / Math.max(1, performance.now() - began) * 1000;
      const origin = from === 'kept' ? 'kept copy: ' : '';
      this.loading.set(size ? done / size : 0, `${origin}${bytes(done)} of ${bytes(size)}, ${bytes(speed)}/s`);
    };
    try {
      const opened = await this.engine.call('model.open', given, { signal, progress });
      this.#open = true;
      this.loading.end('');
      this.#describe(opened);
      this.#disable(false);
      if (!this.scoring.busy) {
        byId('own-results').replaceChildren();
        this.scoring.end('');
      }
    } catch (error) {
      if (error instanceof Cancelled) this.loading.end('Cancelled. Nothing was kept.');
      else this.loading.end(sentence(error.message), true, this.#way(error, given, name));
    }
    this.#listed(this.engine.call('cache.list'));
  }

  /** What a GPU is too small for, the CPU engine may take. */
  #way(error, given, name) {
    if (this.engine.device === 'cpu' || !DEVICE.test(error.message)) return null;
    return { label: 'Open it on the CPU engine', act: () => this.useCpu().then(() => this.open(given, name)) };
  }

  #describe({ name, from, trouble, model, ms }) {
    const rows = model.rows.reduce((sum, each) => sum + each, 0);
    const width = model.bits ? `INT${model.bits.tables}` : 'FP32';
    const where = { kept: 'from the kept copy', address: 'from its address', file: 'from the file' }[from];
    this.facts.replaceChildren(
      h('p', { class: 'name' }, name),
      h('p', {}, `${width}, ${bytes(model.bytes)}: ${plural(model.tables, 'table')} with ${plural(rows, 'row')} of ${model.dim}. `,
        `Checksums agree. On ${model.engine === 'gpu' ? deviceName(model.device) : 'the CPU engine'} in ${duration(ms)} ${where}.`,
        trouble && ` Not kept for the next visit: ${trouble}.`));
    const { columns } = model;
    const named = { '\t': 'tabs', ',': 'commas' }[columns.separator] ?? `“${columns.separator}”`;
    const parts = [columns.label && 'label', columns.dense.length > 0 && plural(columns.dense.length, 'number'),
      columns.categorical.length > 0 && `${columns.categorical.length} ${columns.categorical.length === 1 ? 'category' : 'categories'}`,
      columns.multi_hot.length > 0 && plural(columns.multi_hot.length, 'list')].filter(Boolean);
    this.layout.textContent = `This model reads ${parts.join(', ')}, separated by ${named}${columns.header ? ', below a line of names' : ''}.`;
  }

  /** @param {Promise<{models: {id: string, name: string, size: number}[], room: number | null}>} asked */
  async #listed(asked) {
    let found;
    try {
      found = await asked;
    } catch {
      return;
    }
    const { models, room } = found;
    if (models.length === 0) return this.kept.replaceChildren();
    const rows = models.map(({ id, name, size }) => h('li', {},
      h('span', { class: 'name' }, name), h('span', {}, bytes(size)),
      h('button', { type: 'button', 'aria-label': `Open ${name}`, onclick: () => this.open({ kept: id }, name) }, 'Open'),
      h('button', { type: 'button', 'aria-label': `Delete ${name}`, onclick: () => this.#listed(this.engine.call('cache.remove', { id })) }, 'Delete')));
    this.kept.replaceChildren(h('h4', {}, 'Kept in this browser', h('span', {}, room === null ? '' : ` (room for ${bytes(room)} more)`)), h('ul', {}, ...rows));
  }

  /** Scores a file of rows. @param {File} file */
  async score(file) {
    if (this.scoring.busy) return;
    if (this.loading.busy) return this.scoring.end('The model is still being opened.', true);
    if (!this.#open) return this.scoring.end('Open a model first.', true);
    const signal = this.scoring.start(`Reading ${file.name}…`);
    const chart = new Histogram({ title: 'How many rows got which click probability', height: 260 });
    const shown = h('dl', { class: 'facts' }, figure('rows', '0'), figure('speed', ' '));
    const right = h('div', {});
    byId('own-results').replaceChildren(shown, h('div', { class: 'two' }, chart.element, right));
    const progress = ({ done, size, rows, seconds, all, clicked }) => {
      const speed = rows / Math.max(seconds, 1e-3);
      this.scoring.set(done / Math.max(1, size), `${bytes(done)} of ${bytes(size)}, ${large(rows)} rows, ${large(Math.round(speed))} rows/s`);
      shown.replaceChildren(figure('rows', large(rows)), figure('speed', large(Math.round(speed)), 'rows/s'));
      chart.set(all, clicked);
    };
    try {
      const result = await this.engine.call('rows.score', { file }, { signal, progress });
      this.scoring.end(result.skipped > 0 ? sentence(`${plural(result.skipped, 'row')} left out: ${result.messages[0] ?? 'they could not be read'}`) : '', result.rows === 0);
      this.#results(result, shown, right, chart);
      chart.set(result.all, result.clicked);
    } catch (error) {
      byId('own-results').replaceChildren();
      if (error instanceof Cancelled) this.scoring.end('Cancelled.');
      else this.scoring.end(sentence(error.message), true);
    }
  }

  #results({ name, rows, seconds, labelled, first, summary }, shown, right, chart) {
    const facts = [figure('rows', large(rows)), figure('speed', large(Math.round(rows / Math.max(seconds, 1e-3))), 'rows/s')];
    if (labelled && summary) {
      facts.push(figure('AUC', score(summary.auc)), figure('log loss', score(summary.log_loss)),
        figure('calibration', score(summary.calibration), 'predicted / observed'));
    }
    shown.replaceChildren(...facts);
    const lines = first.map(({ p, label }, row) => h('tr', {}, h('td', {}, count(row + 1)), h('td', {}, percent(p)),
      labelled && h('td', {}, Number.isNaN(label) ? '' : label === 1 ? 'click' : 'no click')));
    if (labelled) chart.element.append(h('p', { class: 'hint' }, h('span', { class: 'key' }), ' of them with a click'));
    right.replaceChildren(
      h('table', {}, h('caption', {}, 'The first rows'), h('thead', {}, h('tr', {}, h('th', {}, 'row'), h('th', {}, 'probability'), labelled && h('th', {}, 'label'))), h('tbody', {}, ...lines)),
      h('button', { type: 'button', onclick: async () => download(`${name.replace(/\.(gz|tsv|csv|txt)$/g, '')}.scores.txt`, await this.engine.call('rows.text')) }, 'Download all scores'));
  }
}
