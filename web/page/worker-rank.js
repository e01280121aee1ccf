// The small default model: twice, in INT4 and in FP32, both ranking the same candidates.

import { state, Turns } from './worker-state.js';

const BATCH = 128;
const turns = new Turns();
/** @type {any} */ let int4 = null;
/** @type {any} */ let fp32 = null;

/** Fetches a file of the default model, telling how far it is. */
async function fetched(name, job) {
  const url = new URL(`./model/${name}`, import.meta.url);
  const response = await fetch(url, { signal: job.signal });
  if (!response.ok) throw new Error(`${name} could not be read: the server answered ${response.status}`);
  return new Uint8Array(await response.arrayBuffer());
}

/** A packed file in memory, onto the device. @param {Uint8Array} file @param {string} name */
async function unpacked(file, name) {
  const incoming = new state.dqrm.Incoming(state.device, BATCH, name, file.length);
  await incoming.push(file);
  return incoming.finish();
}

/** Loads the features' names, the packed model and its FP32 weights. */
export async function load(_given, job) {
  const model = JSON.parse(new TextDecoder().decode(await fetched('clicks.json', job)));
  job.progress('reading the small model…');
  const [packed, weights] = await Promise.all([fetched('clicks.int4.safetensors', job), fetched('clicks.fp32.safetensors', job)]);
  job.progress('loading the small model…');
  const began = performance.now();
  int4 = await unpacked(packed, 'clicks.int4.safetensors');
  fp32 = await state.dqrm.Scorer.full(weights, int4, state.device);
  return { model, int4: JSON.parse(int4.describe()), fp32: JSON.parse(fp32.describe()), ms: performance.now() - began };
}

/** Scores one ranking's rows with both, timing each. @param {{rows: string}} given */
export function run({ rows }) {
  return turns.take(async () => {
    const began = performance.now();
    const small = await int4.rank(rows);
    const between = performance.now();
    const full = await fp32.rank(rows);
    return { int4: small, fp32: full, int4_ms: between - began, fp32_ms: performance.now() - between };
  });
}

/** Puts another packed model in the INT4 model's place, or the page's own where none is given. @param {{file: Uint8Array | null, name: string}} given */
export function use({ file, name }, job) {
  return turns.take(async () => {
    const next = await unpacked(file ?? await fetched(name, job), name);
    int4.free();
    int4 = next;
    return JSON.parse(int4.describe());
  });
}
