// What was measured while training, and what it says. Pure: no page, no worker.

import { count, score } from './dom.js';

/** Points of a loss curve that are kept; when there are more, neighbours are joined. */
const POINTS = 400;
/** An AUC further than this below its best counts as fallen. */
const FALLEN = 0.002;

/** Two turns as one. @returns {[number, number, number]} */
const joined = ([, a, m], [x, b, n]) => [x, (a * m + b * n) / (m + n), m + n];

/** One model's curves. */
export class Curve {
  /** @type {[number, number, number][]} epoch, mean loss and steps of a turn */ #turns = [];
  /** @type {[number, number][]} epoch and AUC */ auc = [];
  /** @type {[number, number] | null} */ best = null;
  /** Steps a second, over the last turns. */
  speed = 0;

  /** @param {{epoch: number, loss: number, n: number, ms: number}} turn */
  trained({ epoch, loss, n, ms }) {
    const now = n / Math.max(ms / 1000, 1e-6);
    this.speed = this.speed === 0 ? now : this.speed * 0.85 + now * 0.15;
    this.#turns.push([epoch, loss, n]);
    if (this.#turns.length > 2 * POINTS) this.#turns = this.#turns.flatMap((turn, at, all) => (at % 2 === 1 ? [joined(all[at - 1], turn)] : []));
  }

  /** @param {number} epoch @param {number} auc */
  evaluated(epoch, auc) {
    this.auc.push([epoch, auc]);
    if (!this.best || auc > this.best[1]) this.best = [epoch, auc];
  }

  /** The loss as a mean over a moving window of epochs. @returns {[number, number][]} */
  loss() {
    const width = Math.max(0.12, (this.#turns.at(-1)?.[0] ?? 0) * 0.03);
    let from = 0;
    let sum = 0;
    let steps = 0;
    return this.#turns.map(([x, y, n]) => {
      sum += y * n;
      steps += n;
      while (this.#turns[from][0] < x - width) {
        const [, gone, of] = this.#turns[from];
        sum -= gone * of;
        steps -= of;
        from += 1;
      }
      return [x, sum / steps];
    });
  }

  /** How far the last AUC is below the best. */
  get fallen() {
    return this.best ? this.best[1] - this.auc[this.auc.length - 1][1] : 0;
  }
}

/**
 * What one sees in the curves, in words.
 * @param {Curve} int4 @param {Curve} fp32 @param {string} name of the rounded model, such as "INT4"
 */
export function story(int4, fp32, name) {
  if (fp32.auc.length === 0) {
    return `Press Train: both models begin with the same weights. Watch the right chart: training loss always falls, but AUC on new clicks turns once a model learns its clicks by heart.`;
  }
  const at = (curve) => `${score(curve.auc[curve.auc.length - 1][1])}`;
  const best = (curve) => `${score(curve.best[1])} after ${count(curve.best[0], 1)} epochs`;
  const less = (curve) => score(curve.fallen);
  const fp32Fell = fp32.fallen > FALLEN;
  const int4Fell = int4.fallen > FALLEN;
  if (!fp32Fell && !int4Fell) {
    return `Both still learn what holds for new clicks, too: AUC ${at(int4)} in ${name}, ${at(fp32)} in FP32. Train on: one of them will turn first.`;
  }
  if (fp32Fell && !int4Fell) {
    return `FP32 was at its best with ${best(fp32)} and has lost ${less(fp32)} since: it learns seldom ids by heart. `
      + `${name} holds at ${at(int4)}: until its scales are new, no weight can grow beyond the largest code. With new scales every 200 steps that bound moves along, and ${name} turns like FP32.`;
  }
  if (fp32Fell) {
    const less32 = fp32.fallen - int4.fallen;
    const verdict = less32 > FALLEN ? `, which is ${score(less32)} less` : less32 < -FALLEN ? ', which is more' : ', about as much';
    return `Both are past their best. FP32 fell by ${less(fp32)} from ${best(fp32)}; ${name} by ${less(int4)} from ${best(int4)}${verdict}. `
      + `Rounding puts overfitting off; it does not rule it out.`;
  }
  return `${name} is ${less(int4)} below its best of ${best(int4)}, while FP32 stands at ${at(fp32)}. With another step size it may go the other way.`;
}
