// What the parts of the worker share.

/** The library and the device that the reader chose. */
export const state = {
  /** @type {any} the wasm module */
  dqrm: null,
  device: 'auto',
};

/** That the engine stopped and nobody said why. @param {string} device */
export const ended = (device) => `the engine stopped unexpectedly${device === 'cpu' ? '' : '; on a GPU, its device may be lost'}`;

/** Thrown between two pieces of work when the request was cancelled. */
export class Stopped extends Error {}

/**
 * One request's means: progress to the page, and the end of it.
 * @typedef {{signal: AbortSignal, progress: (value: any) => void, check: () => void}} Job
 */

/**
 * Lets calls on one object wait for each other: objects of the library take one call at a time.
 * @template T
 */
export class Turns {
  #last = Promise.resolve();

  /** @param {() => Promise<T>} work @returns {Promise<T>} */
  take(work) {
    const result = this.#last.then(work);
    this.#last = result.then(() => {}, () => {});
    return result;
  }
}

/** Lets messages in: a cancel, a request of another part. */
export const breathe = () => new Promise((resume) => {
  const { port1, port2 } = new MessageChannel();
  port1.onmessage = () => {
    port1.close();
    resume(undefined);
  };
  port2.postMessage(0);
});

/**
 * A stream's bytes in pieces of about `size` bytes. A piece is valid until the next one is asked for.
 * @param {ReadableStream<Uint8Array>} stream @param {number} size @param {Job} job
 * @returns {AsyncGenerator<Uint8Array>}
 */
export async function* pieces(stream, size, job) {
  const reader = stream.getReader();
  const buffer = new Uint8Array(size);
  let held = 0;
  try {
    for (;;) {
      const { value, done } = await reader.read();
      job.check();
      if (done) break;
      for (let at = 0; at < value.length;) {
        const taken = Math.min(size - held, value.length - at);
        buffer.set(value.subarray(at, at + taken), held);
        held += taken;
        at += taken;
        if (held === size) {
          yield buffer;
          job.check();
          held = 0;
        }
      }
    }
    if (held > 0) yield buffer.subarray(0, held);
  } finally {
    reader.cancel().catch(() => {});
  }
}
