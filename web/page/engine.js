// The page's side of the worker: a promise for each request, progress while it lasts, cancel between pieces.

import { ended } from './worker-state.js';

/** Thrown where a request was cancelled: nothing to tell the reader. */
export class Cancelled extends Error {
  constructor() {
    super('cancelled');
    this.name = 'Cancelled';
  }
}

/**
 * What a request may bring along.
 * @typedef {{progress?: (value: any) => void, signal?: AbortSignal, transfer?: Transferable[]}} Options
 */

export class Engine {
  /** @type {Map<number, {resolve: Function, reject: Function, progress?: Function}>} */
  #waiting = new Map();
  #next = 1;
  #worker;
  #closed = false;
  #answered = false;

  /**
   * @param {string} device "auto", "gpu" or "cpu"
   * @param {(error: Error) => void} lost told when the engine cannot go on: a lost device, a trap in WebAssembly
   */
  constructor(device, lost) {
    this.device = device;
    this.lost = lost;
    this.#worker = new Worker(new URL('./worker.js', import.meta.url), { type: 'module' });
    this.#worker.onmessage = ({ data }) => this.#received(data);
    this.#worker.onerror = (event) => {
      event.preventDefault?.();
      const reason = this.#answered
        ? new Error(ended(device))
        : new Error(`the engine did not start: ${event.message || 'its files could not be loaded'}`);
      this.#died(reason);
    };
  }

  /**
   * Asks the worker. Rejects with the worker's sentence, or with `Cancelled`.
   * @param {string} op @param {object} [given] @param {Options} [options]
   * @returns {Promise<any>}
   */
  call(op, given = {}, { progress, signal, transfer = [] } = {}) {
    if (this.#closed) return Promise.reject(new Cancelled());
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      if (signal?.aborted) return reject(new Cancelled());
      this.#waiting.set(id, { resolve, reject, progress });
      signal?.addEventListener('abort', () => this.#worker.postMessage({ cancel: id }));
      this.#worker.postMessage({ id, op, given }, transfer);
    });
  }

  /** Ends the worker and all that it holds. */
  close() {
    this.#closed = true;
    this.#worker.terminate();
    this.#failed(new Cancelled());
  }

  #received({ id, value, error, progress, died }) {
    if (died) return this.#died(new Error(died));
    const request = this.#waiting.get(id);
    if (!request) return;
    this.#answered = true;
    if (progress !== undefined) return request.progress?.(progress);
    this.#waiting.delete(id);
    if (error === undefined) return request.resolve(value);
    const reason = error.cancelled ? new Cancelled() : new Error(error.message);
    request.reject(reason);
    if (error.fatal) this.lost(reason);
  }

  #died(reason) {
    this.#failed(reason);
    this.lost(reason);
  }

  #failed(error) {
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }
}
