// A visitor's own packed model: read in pieces from a file, an address or the kept files, straight onto the device.

import { pieces, state, Stopped, Turns } from './worker-state.js';
import * as cache from './worker-cache.js';

const PIECE = 4 << 20;
const BATCH = 1024;

/** @type {any} the visitor's model, while one is open */
let scorer = null;
const turns = new Turns();
/** Grows whenever the model is to be replaced: work with the old one ends. */
let wanted = 0;

/**
 * Work with the open model, which nobody frees meanwhile. It ends at its next `check` when another model takes the place.
 * @template T
 * @param {import('./worker-state.js').Job} job
 * @param {(scorer: any, job: import('./worker-state.js').Job) => Promise<T>} work
 * @returns {Promise<T>}
 */
export function using(job, work) {
  const mine = wanted;
  const check = () => {
    job.check();
    if (mine !== wanted) throw new Stopped();
  };
  return turns.take(async () => {
    check();
    if (!scorer) throw new Error('no model is open: open one first');
    return work(scorer, { ...job, check });
  });
}

/** Puts a model, or none, in the open one's place, as soon as nobody works with that. @param {any} next */
function replace(next) {
  wanted += 1;
  return turns.take(async () => {
    const old = scorer;
    scorer = next;
    old?.free();
  });
}

/**
 * Where bytes come from.
 * @typedef {{name: string, size: number, stream: ReadableStream<Uint8Array>,
 *   keep: {source: string, stamp: string} | null, from: string}} Source `size` is 0 where nobody told; `keep` says under which name it is kept
 */

/** @param {File} file @returns {Promise<Source>} */
async function fromFile(file) {
  const keep = { source: `file:${file.name}`, stamp: String(file.lastModified) };
  return { name: file.name, size: file.size, stream: file.stream(), keep, from: 'file' };
}

/** @param {string} id @returns {Promise<Source>} */
async function fromCache(id) {
  const file = await cache.opened(id);
  const name = shownName(id, file.name);
  return { name, size: file.size, stream: file.stream(), keep: null, from: 'kept' };
}

function shownName(id, fallback) {
  try {
    return decodeURIComponent(id.split('-').slice(3).join('-'));
  } catch {
    return fallback;
  }
}

/** The kept copy where the server still has the same version, or cannot be reached. @returns {Promise<Source>} */
async function fromUrl(text, job) {
  const url = new URL(text, self.location.href).href;
  const name = decodeURIComponent(new URL(url).pathname.split('/').pop() || url);
  const own = new AbortController();
  job.signal.addEventListener('abort', () => own.abort());
  let response;
  try {
    response = await fetch(url, { signal: own.signal });
  } catch (error) {
    job.check();
    const kept = await cache.find(url);
    if (kept) return fromCache(kept);
    throw new Error(`${name} could not be fetched: the address is wrong, there is no connection, or its server lets no other page read it (CORS)`);
  }
  if (!response.ok) throw new Error(`${name} could not be fetched: the server answered ${response.status}`);
  // What is compressed on the way has another length there than here, and other servers need not say whether it is; then
  // the file's own header tells.
  const foreign = new URL(response.url || url).origin !== self.location.origin;
  const size = foreign || response.headers.get('content-encoding') ? 0 : Number(response.headers.get('content-length'));
  const version = response.headers.get('etag') || response.headers.get('last-modified');
  const kept = version && await cache.find(url, version);
  if (kept) {
    own.abort();
    return fromCache(kept);
  }
  // without a version every fetch is another one
  const stamp = version || `fetched ${Date.now()}`;
  return { name, size, stream: response.body, keep: { source: url, stamp }, from: 'address' };
}

/**
 * The size of a safetensors file, from its beginning: a length, a header in JSON, the tensors.
 * @param {Uint8Array} head @param {string} name
 */
function sizeOf(head, name) {
  try {
    const length = Number(new DataView(head.buffer, head.byteOffset, head.length).getBigUint64(0, true));
    const header = JSON.parse(new TextDecoder('utf-8', { fatal: true }).decode(head.subarray(8, 8 + length)));
    const ends = Object.entries(header).filter(([key]) => key !== '__metadata__').map(([, { data_offsets }]) => data_offsets[1]);
    const size = 8 + length + Math.max(0, ...ends);
    if (8 + length <= head.length && Number.isSafeInteger(size)) return size;
  } catch {
    // not such a file: said below
  }
  throw new Error(`${name} is not a packed model: it does not begin with a safetensors header`);
}

/** Moves a source's bytes onto the device, and into the kept files while they pass. */
async function carried(source, job) {
  const { name, from, keep } = source;
  let { size } = source;
  let incoming = null;
  let keeper = null;
  let done = 0;
  try {
    for await (const piece of pieces(source.stream, PIECE, job)) {
      if (!incoming) {
        size ||= sizeOf(piece, name);
        incoming = new state.dqrm.Incoming(state.device, BATCH, name, size);
        keeper = keep && await cache.Keeper.create({ ...keep, size, name });
      }
      await incoming.push(piece);
      keeper?.write(piece);
      done += piece.length;
      job.progress({ done, size, from });
    }
    if (!incoming) throw new Error(`${name} is empty`);
    const whole = incoming;
    incoming = null;
    const model = await whole.finish();
    await keeper?.end(true);
    return { model, trouble: keeper?.trouble ?? null };
  } catch (error) {
    incoming?.free();
    await keeper?.end(false);
    throw error;
  }
}

/**
 * Opens a packed model.
 * @param {{file?: File, url?: string, kept?: string}} given
 * @param {import('./worker-state.js').Job} job
 */
export async function open(given, job) {
  const began = performance.now();
  const source = given.file ? await fromFile(given.file) : given.kept ? await fromCache(given.kept) : await fromUrl(given.url, job);
  const { model, trouble } = await carried(source, job);
  const facts = JSON.parse(model.describe());
  await replace(model);
  return { name: source.name, from: source.from, trouble, model: facts, ms: performance.now() - began };
}

/** Gives the device's memory back. */
export const close = () => replace(null);
