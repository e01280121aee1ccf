// The worker: everything that is compiled from Rust runs here, so that the page never waits.
// Requests are {id, op, given}, answers {id, value} or {id, error}, progress {id, progress}, and {cancel: id} ends one.

import { ended, state, Stopped } from './worker-state.js';
import * as rank from './worker-rank.js';
import * as models from './worker-models.js';
import * as rows from './worker-rows.js';
import * as cache from './worker-cache.js';
import * as train from './worker-train.js';

/** Messages after which a device gives nothing more. */
const LOST = /device (was|is) lost|reading back from the device failed/;

/** After such a message, other cases would only be waited for in vain. */
const SILENT = /gave no answer/;

/** @type {Map<number, AbortController>} */
const running = new Map();

/** Loads the library and looks at what there is to run on. */
async function start({ device }) {
  const began = performance.now();
  state.device = device;
  const library = await import('./pkg/dqrm_web.js');
  await library.default();
  state.dqrm = library;
  const devices = JSON.parse(await library.devices());
  return { version: library.version(), devices, ms: performance.now() - began };
}

/** Checks a kernel case by case, so that it can be stopped between two. */
async function checkKernel({ kernel, text }, job) {
  const cases = JSON.parse(await state.dqrm.cases(kernel, 'gpu'));
  const whole = { compiled: true, errors: [], cases: [] };
  for (const { name } of cases) {
    const { compiled, errors, cases: [ran] } = JSON.parse(await state.dqrm.check(kernel, text, 'gpu', name));
    job.check();
    if (!compiled) return { compiled, errors, cases: [] };
    whole.cases.push(ran);
    job.progress({ done: whole.cases.length, of: cases.length });
    if (SILENT.test(ran.message)) break;
  }
  return whole;
}

const lab = {
  kernels: () => JSON.parse(state.dqrm.kernels()),
  check: checkKernel,
  // WGSL needs a GPU, whichever engine the models use.
  time: async ({ kernel, text, seconds }) => JSON.parse(await state.dqrm.time(kernel, text, seconds, 'gpu')),
};

const operations = {
  start,
  'rank.load': rank.load,
  'rank.run': rank.run,
  'rank.use': rank.use,
  'model.open': models.open,
  'model.close': models.close,
  'cache.list': cache.list,
  'cache.remove': cache.remove,
  'rows.score': rows.scoreRows,
  'rows.text': rows.text,
  'train.load': train.load,
  'train.run': train.run,
  'train.rate': train.rate,
  'train.pack': train.pack,
  'lab.kernels': lab.kernels,
  'lab.check': lab.check,
  'lab.time': lab.time,
};

async function answer({ id, op, given }) {
  const controller = new AbortController();
  running.set(id, controller);
  const job = {
    signal: controller.signal,
    progress: (progress) => postMessage({ id, progress }),
    check: () => {
      if (controller.signal.aborted) throw new Stopped();
    },
  };
  try {
    postMessage({ id, value: await operations[op](given, job) });
  } catch (error) {
    const cancelled = controller.signal.aborted || error instanceof Stopped;
    const message = sentence(error);
    postMessage({ id, error: { cancelled, message, fatal: error instanceof WebAssembly.RuntimeError || LOST.test(message) } });
  } finally {
    running.delete(id);
  }
}

/** An error as one sentence. A trap in WebAssembly says nothing that helps a reader. */
function sentence(error) {
  if (error instanceof WebAssembly.RuntimeError) return globalThis.dqrmPanic ?? ended(state.device);
  return error?.message || String(error);
}

// A mistake in the library leaves what was asked open for ever: the page hears the sentence, and may begin anew.
for (const kind of ['error', 'unhandledrejection']) {
  addEventListener(kind, (event) => {
    if (!globalThis.dqrmPanic) return;
    event.preventDefault();
    postMessage({ died: globalThis.dqrmPanic });
  });
}

onmessage = ({ data }) => {
  if (data.cancel) running.get(data.cancel)?.abort();
  else answer(data);
};
