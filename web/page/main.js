// The page: starts the engine, hands it to the parts, and finds a way on when something fails.

import { binary, byId, bytes, deviceName, duration, h, s } from './dom.js';
import { Cancelled, Engine } from './engine.js';
import { ShaderCorner } from './lab.js';
import { OwnModel } from './own.js';
import { Ranking } from './rank.js';
import { recall, remember } from './storage.js';
import { Training } from './train.js';
import { clearNotice, notice, sentence } from './widgets.js';

/** @type {Engine | null} */ let engine = null;
/** @type {Ranking | null} */ let ranking = null;
/** @type {any} */ let loaded = null;

const own = new OwnModel(unseenRows, () => choose('cpu'));
const training = new Training(rankWith);
const lab = new ShaderCorner();

/** What runs the models, in one line. */
function describe({ devices, ms }, { int4, fp32, ms: model_ms }) {
  const { gpu, threads } = devices;
  const onGpu = int4.engine === 'gpu';
  byId('where').textContent = onGpu ? 'GPU' : 'CPU';
  /** @type {(Node | string)[]} */
  const parts = [h('b', {}, onGpu ? deviceName(int4.device) : 'CPU engine')];
  if (onGpu) parts.push(`WebGPU, up to ${binary(gpu.limits.max_binding)} a binding`);
  else parts.push(threads === 1 ? 'one thread' : `${threads} threads`);
  parts.push(`model ${bytes(int4.bytes)} (FP32 ${bytes(fp32.bytes)})`, `ready in ${duration(ms + model_ms)}`);
  byId('status').replaceChildren(h('span', { class: `dot ${int4.engine}` }), ...parts.map((part) => h('span', {}, part)));
}

/** Why there is no GPU. */
function withoutGpu() {
  if (!isSecureContext) return `Browsers offer WebGPU only to pages from https or from this computer itself, not to ${location.origin}`;
  if (!navigator.gpu) return 'This browser has no WebGPU (current versions of Chrome, Edge, Safari and Firefox do, on most computers)';
  return 'This browser has WebGPU, but offers no adapter for the GPU here';
}

/** Why the GPU is not used, where that is so and nobody asked for the CPU. */
function explain(devices, used, asked) {
  clearNotice('device');
  if (used === 'gpu' || asked === 'cpu') return;
  if (!devices.gpu) {
    notice('device', `${withoutGpu()}, so the page runs on the CPU engine: the same library, only slower.`);
  } else {
    notice('device', `The only GPU here is a software one (${devices.gpu.name}), so the models run on the CPU engine, which is quicker.`,
      [{ label: 'Use it all the same', act: () => choose('gpu') }]);
  }
}

/** Starts, or starts anew, with a device. @param {string} device */
async function start(device) {
  engine?.close();
  const mine = new Engine(device, (error) => mine === engine && failed(error));
  engine = mine;
  clearNotice('trained');
  byId('device').value = device;
  byId('status').textContent = 'Starting the engine…';
  try {
    const found = await mine.call('start', { device });
    byId('version').textContent = `dqrm ${found.version}`;
    loaded = await mine.call('rank.load', {}, { progress: (text) => { byId('status').textContent = text; } });
    describe(found, loaded);
    explain(found.devices, loaded.int4.engine, device);
    ranking?.close();
    ranking = new Ranking(mine, loaded, failed, ranking?.visitor);
    clearNotice('failed');
    own.attach(mine);
    training.attach(mine);
    lab.attach(mine, found.devices.gpu && (found.devices.gpu.name || 'the GPU'));
  } catch (error) {
    if (mine === engine) failed(error);
  }
}

/** One sentence and a way on. @param {Error} error */
function failed(error) {
  if (error instanceof Cancelled || !engine) return;
  const { device } = engine;
  /** @type {{label: string, act: () => void}[]} */
  const ways = [{ label: 'Try again', act: () => start(device) }];
  if (device !== 'cpu') ways.push({ label: 'Use the CPU engine', act: () => choose('cpu') });
  byId('status').textContent = 'Not running.';
  notice('failed', sentence(error.message), ways);
}

/** @param {string} device */
function choose(device) {
  remember('device', device === 'auto' ? null : device);
  return start(device);
}

/** Rows with labels for the small model, which it was not trained on. */
async function unseenRows() {
  const response = await fetch('model/rows.tsv');
  if (!response.ok) throw new Error(`the rows could not be fetched: the server answered ${response.status}`);
  return new File([await response.blob()], 'rows.tsv');
}

/** Puts a packed model in the INT4 bars' place. @param {Uint8Array} file @param {string} note */
async function rankWith(file, note) {
  await engine.call('rank.use', { file, name: 'trained-here' });
  await ranking.rank();
  notice('trained', `The INT4 bars now show the model ${note}; FP32 is still the page’s own.`,
    [{ label: 'Back to the page’s model', act: restore }]);
  byId('rank').scrollIntoView({ block: 'start' });
  byId('window').scrollTop = 0;
}

async function restore() {
  try {
    await engine.call('rank.use', { file: null, name: 'clicks.int4.safetensors' });
    await ranking.rank();
  } catch (error) {
    failed(error);
  }
}

/** The drawing beside the title: a curve, and the sixteen levels that four bits keep of it. */
function drawSteps() {
  const svg = document.querySelector('.steps');
  const curve = (t) => 0.5 - 0.46 * Math.cos(Math.PI * Math.min(1, Math.max(0, t * 1.06 - 0.03))) + 0.035 * Math.sin(t * 14);
  const points = Array.from({ length: 321 }, (_, x) => [x, curve(x / 320)]);
  const y = (value) => 126 - Math.min(1, Math.max(0, value)) * 120;
  const smooth = points.map(([x, value]) => `${x} ${y(value).toFixed(1)}`).join('L');
  let before = -1;
  const stairs = points.map(([x, value]) => {
    const level = Math.round(Math.min(1, Math.max(0, value)) * 15);
    const turn = level === before ? '' : `H${x}V${y(level / 15).toFixed(1)}`;
    before = level;
    return x === 0 ? `M0 ${y(level / 15).toFixed(1)}` : turn;
  }).join('') + 'H320';
  const levels = Array.from({ length: 16 }, (_, level) => s('line', { class: 'level', x1: 0, x2: 320, y1: y(level / 15), y2: y(level / 15) }));
  svg.replaceChildren(...levels, s('path', { class: 'smooth', d: `M${smooth}` }), s('path', { class: 'stairs', d: stairs }));
}

byId('device').addEventListener('change', (event) => choose(event.target.value));

byId('theme').addEventListener('click', () => {
  const root = document.documentElement;
  const dark = root.dataset.theme ? root.dataset.theme === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
  root.dataset.theme = dark ? 'light' : 'dark';
  remember('theme', root.dataset.theme);
});

// A file dropped beside the places for it must not replace the page.
addEventListener('dragover', (event) => event.preventDefault());
addEventListener('drop', (event) => {
  event.preventDefault();
  const file = event.dataTransfer?.files[0];
  if (!file) return;
  byId('own').scrollIntoView({ block: 'start' });
  if (file.name.endsWith('.safetensors')) own.open({ file }, file.name);
  else own.score(file);
});

drawSteps();
const asked = new URLSearchParams(location.search).get('device') ?? recall('device');
start(['auto', 'gpu', 'cpu'].includes(asked) ? asked : 'auto');
