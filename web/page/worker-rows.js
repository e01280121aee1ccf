// Scoring a file of rows with the visitor's model: read in pieces, unpacked on the way where it is gzip.

import { breathe, pieces, state } from './worker-state.js';
import { using } from './worker-models.js';

const PIECE = 1 << 20;
const FIRST = 12;
/** Bins of the histogram, each a hundredth wide. */
const BINS = 100;

/** What came out of the last file of rows. */
let scores = new Float32Array(0);

/** A float array that grows. */
class Growing {
  #values = new Float32Array(1 << 14);
  length = 0;

  /** @param {Float32Array} more */
  push(more) {
    if (this.length + more.length > this.#values.length) {
      const wider = new Float32Array(Math.max(this.#values.length * 2, this.length + more.length));
      wider.set(this.values());
      this.#values = wider;
    }
    this.#values.set(more, this.length);
    this.length += more.length;
  }

  values() {
    return this.#values.subarray(0, this.length);
  }
}

/** The file's text: gzip is told by its first two bytes, and `passed` counts bytes as they are in the file. */
async function unpacked(file, passed) {
  const head = new Uint8Array(await file.slice(0, 2).arrayBuffer());
  const counted = file.stream().pipeThrough(new TransformStream({
    transform(piece, controller) {
      passed(piece.length);
      controller.enqueue(piece);
    },
  }));
  if (head[0] !== 0x1f || head[1] !== 0x8b) return counted;
  return counted.pipeThrough(new DecompressionStream('gzip'));
}

/**
 * Scores every row of a file.
 * @param {{file: File}} given
 * @param {import('./worker-state.js').Job} job
 */
export function scoreRows({ file }, job) {
  return using(job, (scorer, checked) => scored(scorer, file, checked));
}

async function scored(scorer, file, job) {
  const probabilities = new Growing();
  const labels = new Growing();
  const all = new Uint32Array(BINS);
  const clicked = new Uint32Array(BINS);
  const began = performance.now();
  let passed = 0;
  let told = 0;
  const tell = () => {
    told = performance.now();
    const seconds = (told - began) / 1000;
    job.progress({ done: passed, size: file.size, rows: probabilities.length, seconds, all, clicked });
  };
  const take = async (text, last) => {
    const found = await scorer.push(text, last);
    const wanted = scorer.labels();
    probabilities.push(found);
    labels.push(wanted);
    found.forEach((p, row) => {
      const bin = Math.min(BINS - 1, Math.floor(p * BINS));
      all[bin] += 1;
      if (wanted[row] === 1) clicked[bin] += 1;
    });
    if (performance.now() - told > 100) tell();
    await breathe();
    job.check();
  };

  scorer.begin(file.name);
  const stream = await unpacked(file, (length) => { passed += length; });
  try {
    for await (const piece of pieces(stream, PIECE, job)) await take(piece, false);
  } catch (error) {
    if (error instanceof TypeError) throw new Error(`${file.name} could not be unpacked: ${error.message}`);
    throw error;
  }
  await take(new Uint8Array(0), true);
  tell();

  scores = probabilities.values();
  const seconds = (performance.now() - began) / 1000;
  const known = labels.values();
  return {
    name: file.name,
    rows: scores.length,
    seconds,
    all,
    clicked,
    labelled: known.some((label) => !Number.isNaN(label)),
    first: Array.from(scores.subarray(0, FIRST), (p, row) => ({ p, label: known[row] })),
    summary: scores.length > 0 ? JSON.parse(state.dqrm.summary(scores, known)) : null,
    ...JSON.parse(scorer.skipped()),
  };
}

/** The scores as text, one probability a line. */
export function text() {
  const parts = [];
  for (let at = 0; at < scores.length; at += 1 << 16) {
    parts.push(Array.from(scores.subarray(at, at + (1 << 16)), (p) => `${p}\n`).join(''));
  }
  return new Blob(parts, { type: 'text/plain' });
}
