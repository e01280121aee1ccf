// Two trainers in turns: full FP32 weights and rounded ones, the same clicks in the same order.

import { breathe, state, Turns } from './worker-state.js';

/** A turn of both should take about this long, in milliseconds. */
const TURN = 160;
/** Validations in an epoch. */
const EVALUATIONS = 4;

/** @type {{int4: any, fp32: any} | null} */
let pair = null;
let steps = 8;
/** Steps between two validations. */
let every = 100;
let untilEvaluation = 0;
const turns = new Turns();
/** @type {number | null} a step size to be set between two turns: a trainer takes one call at a time */
let wantedRate = null;

/** Makes both trainers. @param {{settings: {bits: number, period: number, learning_rate: number}}} given */
export const load = ({ settings }, job) => turns.take(() => loaded(settings, job));

async function loaded(settings, job) {
  free();
  const fp32 = await state.dqrm.Trainer.load(state.device, JSON.stringify({ ...settings, bits: null }));
  job.progress('loading the rounded model…');
  const int4 = await state.dqrm.Trainer.load(state.device, JSON.stringify(settings)).catch((error) => {
    fp32.free();
    throw error;
  });
  pair = { fp32, int4 };
  wantedRate = null;
  const facts = JSON.parse(int4.describe());
  every = Math.max(1, Math.round(facts.steps_per_epoch / EVALUATIONS));
  untilEvaluation = every;
  steps = 8;
  return facts;
}

/** Trains until cancelled or until `epochs` are done, telling every turn. @param {{epochs: number}} given */
export const run = ({ epochs }, job) => turns.take(() => trained(epochs, job));

async function trained(epochs, job) {
  job.check();
  if (!pair) throw new Error('no model to train: press “Start over”');
  const { int4, fp32 } = pair;
  for (let epoch = 0; epoch < epochs;) {
    if (wantedRate !== null) {
      int4.set_learning_rate(wantedRate);
      fp32.set_learning_rate(wantedRate);
      wantedRate = null;
    }
    const n = Math.min(steps, untilEvaluation);
    const turn = { int4: await timed(int4, n), fp32: await timed(fp32, n), evaluated: null };
    epoch = turn.int4.epoch;
    untilEvaluation -= n;
    const took = turn.int4.ms + turn.fp32.ms;
    steps = Math.max(1, Math.min(2000, Math.round(n * Math.min(4, TURN / Math.max(1, took)))));
    if (untilEvaluation <= 0) {
      untilEvaluation = every;
      turn.evaluated = { int4: JSON.parse(await int4.evaluate()), fp32: JSON.parse(await fp32.evaluate()) };
    }
    job.progress(turn);
    await breathe();
    job.check();
  }
  return { finished: true };
}

async function timed(trainer, n) {
  const began = performance.now();
  const done = JSON.parse(await trainer.steps(n));
  const { step, epoch, losses } = done;
  return { step, epoch, loss: losses.reduce((sum, loss) => sum + loss, 0) / losses.length, n, ms: performance.now() - began };
}

/** @param {{value: number}} given */
export async function rate({ value }) {
  wantedRate = value;
}

/** The rounded model as a packed file. */
export function pack() {
  return turns.take(async () => {
    if (!pair) throw new Error('no model to pack: train first');
    return pair.int4.pack();
  });
}

function free() {
  const old = pair;
  pair = null;
  old?.int4.free();
  old?.fp32.free();
}
