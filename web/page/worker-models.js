// A visitor's own packed model: read in pieces from a file, an address or the kept files, straight onto the device.

import { pieces, state } from './worker-state.js';
import * as cache from './worker-cache.js';

const PIECE = 4 << 20;
const BATCH = 1024;

/** @type {any} the visitor's model, while one is open */
let scorer = null;

/** @returns {any} */
export function current() {
  if (!scorer) throw new Error('no model is open: open one first');
  return scorer;
}

/**
 * Where bytes come from.
 * @typedef {{name: string, size: number, stream: ReadableStream<Uint8Array>, keeper: cache.Keeper | null, from: string}} Source
 */

/** @param {File} file @returns {Promise<Source>} */
async function fromFile(file) {
  const facts = { source: `file:${file.name}`, stamp: String(file.lastModified), size: file.size, name: file.name };
  return { name: file.name, size: file.size, stream: file.stream(), keeper: await cache.Keeper.create(facts), from: 'file' };
}

/** @param {string} id @returns {Promise<Source>} */
async function fromCache(id) {
  const file = await cache.opened(id);
  const name = shownName(id, file.name);
  return { name, size: file.size, stream: file.stream(), keeper: null, from: 'kept' };
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
  const size = Number(response.headers.get('content-length'));
  const stamp = response.headers.get('etag') ?? response.headers.get('last-modified') ?? '';
  const kept = await cache.find(url, `${stamp} ${size}`);
  if (kept) {
    own.abort();
    return fromCache(kept);
  }
  if (!size || response.headers.get('content-encoding')) {
    own.abort();
    throw new Error(`${name} could not be fetched: the server does not say how large the file is; save it and open the file`);
  }
  const keeper = await cache.Keeper.create({ source: url, stamp: `${stamp} ${size}`, size, name });
  return { name, size, stream: response.body, keeper, from: 'address' };
}

/**
 * Opens a packed model.
 * @param {{file?: File, url?: string, kept?: string}} given
 * @param {import('./worker-state.js').Job} job
 */
export async function open(given, job) {
  const began = performance.now();
  const source = given.file ? await fromFile(given.file) : given.kept ? await fromCache(given.kept) : await fromUrl(given.url, job);
  const { name, size, keeper, from } = source;
  let wanted = false;
  let incoming = null;
  let done = 0;
  try {
    incoming = new state.dqrm.Incoming(state.device, BATCH, name, size);
    job.progress({ done, size, from });
    for await (const piece of pieces(source.stream, PIECE, job)) {
      await incoming.push(piece);
      keeper?.write(piece);
      done += piece.length;
      job.progress({ done, size, from });
    }
    const whole = incoming;
    incoming = null;
    const next = await whole.finish();
    close();
    scorer = next;
    wanted = true;
  } finally {
    incoming?.free();
    await keeper?.end(wanted);
  }
  const trouble = keeper?.trouble ?? null;
  return { name, from, trouble, model: JSON.parse(scorer.describe()), ms: performance.now() - began };
}

/** Gives the device's memory back. */
export function close() {
  scorer?.free();
  scorer = null;
}
