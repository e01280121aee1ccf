// Part 4: every kernel with its WGSL; a change is compiled, checked against its twin, and timed beside the original.

import { byId, count, duration, h, plural } from './dom.js';
import { Cancelled } from './engine.js';
import { Editor } from './editor.js';
import { recall, remember } from './storage.js';
import { Progress, sentence } from './widgets.js';

/** A rate with two digits that count. @param {number} value */
const rate = (value) => (value >= 10 ? count(value) : String(Number(value.toPrecision(2))));

/** Messages of cases that came to no result: nothing is known about the kernel's values. */
const UNANSWERED = /gave no answer|device (was|is) lost|reading back from the device failed/;

/** How long a timing takes, in seconds. */
const SECONDS = 1.5;

/** @typedef {{name: string, op: string, formula: string, file: string, source: string, workgroup: number[], cases: number,
 *   bindings: {name: string, access: string, type: string}[]}} Kernel */

export class ShaderCorner {
  /** @type {import('./engine.js').Engine} */ engine;
  /** @type {Kernel[]} */ kernels = [];
  /** @type {Kernel | null} */ current = null;

  constructor() {
    this.search = h('input', { type: 'search', id: 'lab-search', placeholder: 'Search', 'aria-label': 'Search kernels', oninput: () => this.#list() });
    this.list = h('ul', { class: 'kernels', role: 'listbox', 'aria-label': 'Kernels', id: 'lab-kernels', onkeydown: (event) => this.#key(event) });
    this.title = h('h3', { id: 'lab-name' }, ' ');
    this.formula = h('p', { class: 'formula' });
    this.facts = h('p', { class: 'kernel-facts' });
    this.editor = new Editor({ changed: (text) => this.#edited(text), leave: () => (this.run.disabled ? this.search : this.run).focus(), run: () => this.#run() });
    this.run = h('button', { type: 'button', class: 'primary', id: 'lab-run', onclick: () => this.#run() }, 'Run');
    this.back = h('button', { type: 'button', id: 'lab-reset', onclick: () => this.#reset() }, 'Back to the original');
    this.progress = new Progress();
    this.results = h('div', { class: 'lab-results', id: 'lab-results' });
    byId('lab-body').replaceChildren(h('div', { class: 'lab' },
      h('div', { class: 'lab-list' }, this.search, this.list),
      h('div', { class: 'lab-kernel' }, this.title, this.formula, this.facts, this.editor.element,
        h('div', { class: 'buttons' }, this.run, this.back, h('span', { class: 'hint' }, 'Escape leaves the editor, Ctrl Enter runs')),
        this.progress.element, this.results)));
  }

  /** @param {import('./engine.js').Engine} engine @param {string | null} gpu the name of what compiles WGSL, if there is something */
  async attach(engine, gpu) {
    this.engine = engine;
    this.gpu = gpu;
    this.run.disabled = !gpu;
    this.results.replaceChildren();
    this.progress.end(gpu ? '' : 'Without WebGPU a kernel can be read here, but not compiled or run.');
    try {
      this.kernels = await engine.call('lab.kernels');
    } catch (error) {
      if (!(error instanceof Cancelled)) this.progress.end(sentence(error.message), true);
      return;
    }
    this.#list();
    const last = recall('lab.current');
    this.#select(this.kernels.find(({ name }) => name === last) ?? this.kernels.find(({ name }) => name === 'matmul_nt') ?? this.kernels[0]);
  }

  /** @param {Kernel} kernel */
  #changed(kernel) {
    return recall(`lab.${kernel.name}`) !== null;
  }

  #list() {
    const held = this.list.contains(document.activeElement) ? document.activeElement.id : '';
    const words = this.search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = this.kernels.filter(({ name, op, formula, file }) => words.every((word) => `${name} ${op} ${formula} ${file}`.toLowerCase().includes(word)));
    this.list.replaceChildren(...found.map((kernel) => h('li', {
      role: 'option', id: `kernel-${kernel.name}`, tabIndex: kernel === this.current ? 0 : -1,
      'aria-selected': String(kernel === this.current),
      class: this.#changed(kernel) ? 'edited' : '',
      data: { name: kernel.name },
      onclick: () => this.#select(kernel),
    }, h('span', {}, kernel.name), this.#changed(kernel) && h('small', {}, 'edited'))));
    if (found.length === 0) this.list.append(h('li', { class: 'none' }, 'No kernel is named so.'));
    else if (!found.includes(this.current)) this.list.firstElementChild.tabIndex = 0;
    if (held) byId(held)?.focus();
  }

  #key(event) {
    const items = [...this.list.querySelectorAll('[role=option]')];
    const at = items.indexOf(document.activeElement);
    const to = { ArrowDown: at + 1, ArrowUp: at - 1, Home: 0, End: items.length - 1 }[event.key];
    if (event.key === 'Enter' || event.key === ' ') {
      event.preventDefault();
      items[at]?.click();
    } else if (to !== undefined && items[to]) {
      event.preventDefault();
      const { name } = items[to].dataset;
      this.#select(this.kernels.find((kernel) => kernel.name === name));
      byId(`kernel-${name}`).focus();
    }
  }

  /** @param {Kernel} kernel */
  #select(kernel) {
    if (!kernel) return;
    if (kernel !== this.current) this.progress.cancel();
    this.current = kernel;
    remember('lab.current', kernel.name);
    this.title.textContent = kernel.name;
    this.formula.textContent = kernel.formula;
    this.facts.textContent = `${kernel.file}, workgroup ${kernel.workgroup.join(' × ')}, ${plural(kernel.cases, 'case')}; `
      + `binds ${kernel.bindings.map(({ name, access }) => `${name} (${access.replace('_', ' and ')})`).join(', ')}`;
    this.editor.text = recall(`lab.${kernel.name}`) ?? kernel.source;
    const entry = kernel.source.split('\n').findIndex((line) => new RegExp(`fn ${kernel.name}\\b`).test(line));
    if (entry > 8) this.editor.reveal(entry + 6);
    this.results.replaceChildren();
    this.back.disabled = !this.#changed(kernel);
    this.#list();
  }

  #edited(text) {
    const { name, source } = this.current;
    const before = this.#changed(this.current);
    remember(`lab.${name}`, text === source ? null : text);
    this.back.disabled = text === source;
    if (before !== this.#changed(this.current)) this.#list();
  }

  #reset() {
    remember(`lab.${this.current.name}`, null);
    this.#select(this.current);
    this.editor.area.focus();
  }

  async #run() {
    if (this.progress.busy || !this.gpu || !this.current) return;
    const kernel = this.current;
    const text = this.editor.text === kernel.source ? undefined : this.editor.text;
    const given = { kernel: kernel.name, text };
    this.run.disabled = true;
    this.results.replaceChildren();
    const signal = this.progress.start(`Compiling ${kernel.name} and checking it on ${plural(kernel.cases, 'case')}…`);
    try {
      const progress = ({ done, of }) => this.progress.set(0.6 * (done / of), `Checking ${kernel.name}: ${done} of ${plural(of, 'case')}…`);
      const checked = await this.engine.call('lab.check', given, { signal, progress });
      this.editor.mark(checked.errors);
      this.#verdict(checked, text !== undefined);
      if (checked.compiled && checked.cases.every(({ passed }) => passed)) {
        this.progress.set(0.7, `Timing ${kernel.name} for ${SECONDS} s${text === undefined ? '' : ', in turns with the original'}…`);
        this.#times(await this.engine.call('lab.time', { ...given, seconds: SECONDS }, { signal }));
      }
      this.progress.end('');
    } catch (error) {
      if (error instanceof Cancelled) this.progress.end('Cancelled.');
      else this.progress.end(sentence(error.message), true);
    }
    this.run.disabled = !this.gpu;
  }

  #verdict({ compiled, errors, cases }, edited) {
    if (!compiled) {
      const lines = errors.map(({ line, column, message }) => h('li', {}, line > 0 && h('button', { type: 'button', class: 'link', onclick: () => this.editor.show(line, column) }, `line ${line}, column ${column}`), ` ${sentence(message)}`));
      this.results.replaceChildren(h('p', { class: 'verdict-line bad', role: 'status' }, 'It does not compile:'), h('ul', { class: 'errors' }, ...lines));
      if (errors[0]?.line > 0) this.editor.reveal(errors[0].line);
      return;
    }
    const failed = cases.filter(({ passed }) => !passed);
    const what = edited ? 'Your text' : 'The original';
    const wrong = failed.filter(({ message }) => !UNANSWERED.test(message));
    const silent = failed.find(({ message }) => UNANSWERED.test(message));
    const unanswered = silent && ` ${sentence(`on the case ${silent.name}, ${silent.message}`)}`;
    const verdict = failed.length === 0
      ? h('p', { class: 'verdict-line good', role: 'status' }, `${what} agrees with its twin on ${cases.length === 1 ? 'its one case' : `all ${cases.length} cases`}.`)
      : wrong.length === 0
        ? h('p', { class: 'verdict-line bad', role: 'status' }, `${what} compiles, but not every case came to a result, so it is not timed.${unanswered}`)
        : h('p', { class: 'verdict-line bad', role: 'status' }, `${what} compiles, but differs from its twin on ${wrong.length} of ${plural(cases.length, 'case')}, so it is not timed.`, unanswered);
    const rows = [...failed, ...cases.filter(({ passed }) => passed)].map(({ name, passed, message }) => h('tr', { class: passed ? '' : 'bad' },
      h('td', {}, name), h('td', {}, passed ? 'agrees' : UNANSWERED.test(message) ? 'no result' : 'differs'), h('td', {}, message ?? '')));
    this.results.replaceChildren(verdict, h('div', { class: 'times' }), h('div', { class: 'wide', tabIndex: 0, role: 'region', 'aria-label': 'Cases' },
      h('table', {}, h('thead', {}, h('tr', {}, h('th', {}, 'case'), h('th', {}, 'result'), h('th', {}, 'what was found'))), h('tbody', {}, ...rows))));
  }

  #times({ shape, original, edited, gbytes_per_s, gflops }) {
    const row = (name, { median_ms, low_ms, high_ms }) => h('tr', {}, h('td', {}, name), h('td', {}, duration(median_ms)), h('td', {}, `${duration(low_ms)} to ${duration(high_ms)}`));
    const ratio = edited ? original.median_ms / edited.median_ms : 1;
    const within = (a, b) => a.median_ms >= b.low_ms && a.median_ms <= b.high_ms;
    const compared = !edited ? '' : within(original, edited) && within(edited, original) ? 'They differ by no more than either varies.'
      : ratio > 1 ? `Yours is ${count(ratio, 2)} times as fast.` : `Yours takes ${count(1 / ratio, 2)} times as long.`;
    const rates = [gflops && `${rate(gflops)} GFLOP/s`, gbytes_per_s && `${rate(gbytes_per_s)} GB/s`].filter(Boolean).join(', ');
    this.results.querySelector('.times')?.replaceChildren(
      h('table', {}, h('caption', {}, `Time of one dispatch on ${this.gpu}: ${shape}`), h('thead', {}, h('tr', {}, h('th', {}, ''), h('th', {}, 'median'), h('th', {}, 'eight of ten took'))),
        h('tbody', {}, row('original', original), edited && row('yours', edited))),
      h('p', {}, [compared, rates && `Original: ${rates}.`].filter(Boolean).join(' ')));
  }
}
