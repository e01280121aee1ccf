// The module starts, and says what there is to run on.
import assert from 'node:assert/strict';

async function devices(page) {
  return JSON.parse(await page.evaluate(() => dqrm.devices()));
}

export const tests = [
  {
    name: 'the software adapter is found and described',
    run: async ({ open, note }) => {
      const page = await open();
      assert.match(await page.evaluate(() => dqrm.version()), /^\d+\.\d+\.\d+$/);
      const { gpu, threads } = await devices(page);
      note(JSON.stringify(gpu));
      assert.equal(threads, 1);
      assert.equal(gpu.kind, 'software');
      assert.match(gpu.name, /swiftshader/i);
      assert.ok(gpu.limits.max_binding >= 128 << 20 && gpu.limits.max_storage_buffers >= 8);
    },
  },
  {
    name: 'it works in a worker',
    run: async ({ page, base }) => {
      await page.goto(`${base}/test/blank.html`);
      const answer = await page.evaluate(
        () =>
          new Promise((done) => {
            const worker = new Worker('/test/worker.js', { type: 'module' });
            worker.onmessage = ({ data }) => done(data);
            worker.postMessage({ name: 'devices', args: [] });
          }),
      );
      assert.match(JSON.parse(answer.value).gpu.name, /swiftshader/i);
    },
  },
  ...['none', 'absent'].map((gpu) => ({
    name: `without WebGPU (${gpu}) there is the CPU`,
    gpu,
    allows: [/No available adapters/],
    run: async ({ open }) => {
      const page = await open();
      assert.equal(await page.evaluate(() => 'gpu' in navigator), gpu === 'none');
      assert.deepEqual(await devices(page), { gpu: null, threads: 1 });
    },
  })),
];
