// The page's first part: what runs it, the ranking, and that what is shown is what the model says.
import assert from 'node:assert/strict';
import { changed, opened, plainRows, ranked, shown } from './page-helpers.mjs';

export const tests = [
  {
    name: 'the status line names the adapter, its limit, the sizes and the time',
    timeout: 90,
    run: async ({ page, base, shot }) => {
      await opened({ page, base }, '?device=gpu');
      const status = await page.textContent('#status');
      assert.match(status, /swiftshader/i);
      assert.match(status, /WebGPU, up to \d+ (GiB|MiB) a binding/);
      assert.match(status, /model [\d.]+ (KB|MB) \(FP32 [\d.]+ (KB|MB)\).*ready in [\d.]+ m?s/);
      assert.equal(await page.textContent('#where'), 'GPU');
      await shot('gpu');
    },
  },
  {
    name: '128 bars stand in the order of their probabilities, and a control changes it',
    run: async ({ page, base }) => {
      await opened({ page, base });
      const first = await ranked(page);
      assert.equal(first.length, 128);
      const values = first.map(({ p }) => parseFloat(p));
      assert.deepEqual(values, [...values].sort((a, b) => b - a));
      assert.equal(await page.getAttribute('#ads', 'aria-owns'), first.map(({ id }) => id).join(' '));
      assert.ok(values[0] > values[127], 'all probabilities are equal');

      const before = await shown(page);
      await page.check('.chip input >> nth=6', { force: true });
      await page.check('.chip input >> nth=9', { force: true });
      await changed(page, before);
      const second = await ranked(page);
      assert.notDeepEqual(second.map(({ id }) => id), first.map(({ id }) => id));
      assert.match(page.url(), /#.*interests=/);

      const address = page.url();
      const kept = await shown(page);
      await page.goto('about:blank');
      await page.goto(address);
      await page.waitForSelector('#timing b');
      assert.equal(await shown(page), kept, 'the address does not bring the same visitor back');
    },
  },
  {
    name: 'the bars show what the Scorer says, in INT4 and FP32',
    run: async ({ page, base }) => {
      await opened({ page, base }, '?device=cpu');
      const text = (await plainRows(base)).rows.map((row) => `${row}\n`).join('');
      const expected = await page.evaluate(async (rows) => {
        const dqrm = await import('/pkg/dqrm_web.js');
        const { percent } = await import('/dom.js');
        await dqrm.default();
        const read = async (name) => new Uint8Array(await (await fetch(`/model/${name}`)).arrayBuffer());
        const file = await read('clicks.int4.safetensors');
        const incoming = new dqrm.Incoming('cpu', 128, 'a model', file.length);
        await incoming.push(file);
        const int4 = await incoming.finish();
        const fp32 = await dqrm.Scorer.full(await read('clicks.fp32.safetensors'), int4, 'cpu');
        const texts = async (scorer) => Array.from(await scorer.rank(rows), percent);
        return { int4: await texts(int4), fp32: await texts(fp32) };
      }, text);
      assert.equal(await shown(page), expected.int4.join());
      for (const candidate of [0, 77]) {
        await page.evaluate((n) => document.getElementById(`ad-${n}`).focus(), candidate);
        assert.equal(await page.textContent('.verdict.int4 b'), expected.int4[candidate]);
        assert.equal(await page.textContent('.verdict.fp32 b'), expected.fp32[candidate]);
      }
      assert.notDeepEqual(expected.int4, expected.fp32);
    },
  },
  {
    name: 'a lost device is said in one sentence, and the CPU engine goes on',
    timeout: 120,
    allows: [/lost/i, /destroyed/i],
    run: async ({ page, base, note }) => {
      // The worker's devices are kept, to be lost by a message from the test.
      await page.route('**/pkg/dqrm_web.js', async (route) => {
        const response = await route.fetch();
        const prelude = `
          const request = GPUAdapter.prototype.requestDevice;
          const made = [];
          GPUAdapter.prototype.requestDevice = async function (...given) {
            const device = await request.apply(this, given);
            const lost = new Promise((lose) => made.push(() => { device.destroy(); lose({ reason: 'unknown', message: 'pulled out' }); }));
            Object.defineProperty(device, 'lost', { value: lost });
            return device;
          };
          new BroadcastChannel('test').onmessage = () => made.forEach((lose) => lose());\n`;
        await route.fulfill({ response, body: prelude + await response.text() });
      });
      await opened({ page, base }, '?device=gpu');
      const before = await shown(page);
      await page.evaluate(() => new BroadcastChannel('test').postMessage('destroy'));
      await page.waitForTimeout(300);
      await page.check('.chip input >> nth=6', { force: true });
      await page.waitForSelector('#notice-failed');
      const said = await page.textContent('#notice-failed p');
      note(said);
      assert.ok(said.length < 300 && /[.]$/.test(said), said);
      await page.click('#notice-failed button:has-text("CPU")');
      await changed(page, before);
      await page.waitForFunction(() => document.querySelector('#where').textContent === 'CPU');
      assert.equal(await page.locator('#notice-failed').count(), 0);
    },
  },
  {
    name: 'an interest that stands twice in the address counts once',
    run: async ({ page, base }) => {
      await opened({ page, base }, '?device=cpu#interests=films,travel');
      const once = await shown(page);
      await page.goto('about:blank');
      await opened({ page, base }, '?device=cpu#interests=travel,films,films,travel,films');
      assert.equal(await shown(page), once);
    },
  },
  {
    name: 'another device ranks for the same visitor, Reset gives the first one, and nothing speaks of the old engine’s model',
    run: async ({ page, base }) => {
      await opened({ page, base }, '?device=cpu');
      const first = await shown(page);
      await page.check('.chip input >> nth=6', { force: true });
      await changed(page, first);
      const second = await shown(page);
      await page.evaluate(async () => (await import('/widgets.js')).notice('trained', 'A model that was trained here.'));
      await page.evaluate(() => { document.querySelector('#timing').textContent = ''; });
      await page.selectOption('#device', 'auto');
      await page.waitForSelector('#timing b');
      assert.equal(await page.locator('#notice-trained').count(), 0);
      assert.equal(await shown(page), second);
      await page.click('#visitor button:has-text("Reset")');
      await changed(page, second);
      assert.equal(await shown(page), first);
    },
  },
  {
    name: 'a mistake in the library is told in its own words, and trying again helps',
    run: async ({ page, base }) => {
      await page.route('**/worker.js', async (route) => {
        const response = await route.fetch();
        const panic = `
          new BroadcastChannel('test').onmessage = () => {
            globalThis.dqrmPanic = 'dqrm stopped by a mistake of its own: here';
            throw new WebAssembly.RuntimeError('unreachable');
          };\n`;
        await route.fulfill({ response, body: await response.text() + panic });
      });
      await opened({ page, base }, '?device=cpu');
      await page.evaluate(() => new BroadcastChannel('test').postMessage('panic'));
      await page.waitForSelector('#notice-failed');
      assert.equal(await page.textContent('#notice-failed p'), 'Dqrm stopped by a mistake of its own: here.');
      await page.click('#notice-failed button:has-text("again")');
      await page.waitForFunction(() => !document.querySelector('#notice-failed') && /CPU engine/.test(document.querySelector('#status').textContent));
    },
  },
  ...['none', 'absent'].map((gpu) => ({
    name: `without WebGPU (${gpu}) the page says so and ranks on the CPU engine`,
    gpu,
    allows: [/No available adapters/],
    run: async ({ page, base, shot }) => {
      await opened({ page, base });
      assert.match(await page.textContent('#notice-device p'), /WebGPU.*CPU engine/);
      assert.match(await page.textContent('#status'), /CPU engine/);
      assert.equal((await ranked(page)).length, 128);
      assert.ok(await page.isDisabled('#lab-run'));
      await shot(`without-${gpu}`);
      await page.selectOption('#device', 'gpu');
      await page.waitForSelector('#notice-failed');
      await page.click('#notice-failed button:has-text("CPU")');
      await page.waitForFunction(() => !document.querySelector('#notice-failed') && /CPU engine/.test(document.querySelector('#status').textContent));
    },
  })),
];
