// The page's third part: both models learn, pause, go on, and the packed result ranks.
import assert from 'node:assert/strict';
import { changed, opened, shown } from './page-helpers.mjs';

/** The last point of the loss chart: epochs and loss of a model. */
async function loss(page, name) {
  const said = await page.getAttribute('#train-body .figure:nth-child(1) svg', 'aria-label');
  const found = new RegExp(`${name} ([\\d.]+) after`).exec(said);
  assert.ok(found, said);
  return Number(found[1]);
}

const steps = (page) => page.evaluate(() => Number(/([\d,]+) steps/.exec(document.querySelector('.train-state').textContent)?.[1].replaceAll(',', '') ?? 0));
const reached = (page, wanted) => page.waitForFunction((n) => Number(/([\d,]+) steps/.exec(document.querySelector('.train-state').textContent)?.[1].replaceAll(',', '') ?? 0) >= n, wanted, { timeout: 60_000 });

export const tests = [
  {
    name: 'fifty steps lower the loss of both; pause, resume, download, and the ranking takes the result',
    timeout: 150,
    run: async ({ page, base, shot, note }) => {
      await opened({ page, base });
      assert.ok(await page.isDisabled('#train-save'));
      await page.click('#train-go');
      await reached(page, 1);
      const first = { int4: await loss(page, 'INT4'), fp32: await loss(page, 'FP32') };
      await reached(page, 50);
      await page.fill('#train-rate', '-2.5');
      await page.click('#train-go');
      await page.waitForFunction(() => /Paused/.test(document.querySelector('.train-state').textContent));
      const then = { int4: await loss(page, 'INT4'), fp32: await loss(page, 'FP32') };
      note(JSON.stringify({ first, then }));
      assert.ok(then.int4 < first.int4, `INT4: ${first.int4} to ${then.int4}`);
      assert.ok(then.fp32 < first.fp32, `FP32: ${first.fp32} to ${then.fp32}`);

      await page.click('#train-go');
      await reached(page, 60);
      await page.click('#train-go');
      await page.waitForFunction(() => /Paused/.test(document.querySelector('.train-state').textContent));
      await shot('paused');

      const waiting = page.waitForEvent('download');
      await page.click('#train-save');
      const stream = await (await waiting).createReadStream();
      assert.ok(Buffer.concat(await stream.toArray()).length > 1000);

      const before = await shown(page);
      await page.click('#train-use');
      await changed(page, before);
      assert.match(await page.textContent('#notice-trained p'), /trained here/);
      await page.click('#notice-trained button:has-text("Back")');
      await page.waitForFunction((old) => [...document.querySelectorAll('.ad .p')].map((p) => p.textContent).join() === old, before);

      await page.click('#train-reset');
      await page.waitForFunction(() => /Not started/.test(document.querySelector('.train-state').textContent));
      assert.equal(await steps(page), 0);
    },
  },
  {
    name: 'a model is packed, trained and loaded in turns, however they are asked for',
    timeout: 120,
    run: async ({ page, base }) => {
      await opened({ page, base });
      const found = await page.evaluate(async () => {
        const { Engine } = await import('/engine.js');
        const engine = new Engine('gpu', () => {});
        await engine.call('start', { device: 'gpu' });
        const settings = { bits: 4, period: 10_000, learning_rate: 0.01 };
        await engine.call('train.load', { settings });
        const run = () => engine.call('train.run', { epochs: 1e-9 });
        const asked = [run(), engine.call('train.pack'), run(), engine.call('train.pack'), engine.call('train.load', { settings }), run(), engine.call('train.pack')];
        const answers = await Promise.allSettled(asked);
        engine.close();
        return answers.map(({ status, reason, value }) => (status === 'rejected' ? reason.message : value.length > 1000 ? 'packed' : value.finished ? 'trained' : 'loaded'));
      });
      assert.deepEqual(found, ['trained', 'packed', 'trained', 'packed', 'loaded', 'trained', 'packed']);
    },
  },
  {
    name: 'where the second trainer cannot be loaded, the first one is freed',
    run: async ({ page, base }) => {
      // rounded models find no room as long as `full` is set; every trainer is counted
      await page.route('**/pkg/dqrm_web.js', async (route) => {
        const response = await route.fetch();
        const appended = `
          const { load, prototype } = Trainer;
          const { free } = prototype;
          const channel = new BroadcastChannel('trainers');
          let [live, full] = [0, true];
          channel.onmessage = ({ data }) => { if (data === 'room') full = false; channel.postMessage({ live }); };
          Trainer.load = async (device, settings) => {
            if (full && JSON.parse(settings).bits) throw new Error('no room for a second one');
            const trainer = await load.call(Trainer, device, settings);
            live += 1;
            return trainer;
          };
          prototype.free = function () { live -= 1; free.call(this); };\n`;
        await route.fulfill({ response, body: await response.text() + appended });
      });
      await opened({ page, base });
      const found = await page.evaluate(async () => {
        const { Engine } = await import('/engine.js');
        const engine = new Engine('cpu', () => {});
        await engine.call('start', { device: 'cpu' });
        const channel = new BroadcastChannel('trainers');
        const answers = [];
        const answer = () => new Promise((resolve) => { channel.onmessage = ({ data }) => { answers.push(data.live); setTimeout(resolve, 200); }; });
        const ask = async (what) => { const answered = answer(); channel.postMessage(what); await answered; return Math.max(...answers.splice(0)); };
        const settings = { bits: 4, period: 10_000, learning_rate: 0.01 };
        const failed = await engine.call('train.load', { settings }).catch((error) => error.message);
        const left = await ask('count');
        await ask('room');
        await engine.call('train.load', { settings });
        const loaded = await ask('count');
        await engine.call('train.load', { settings });
        const again = await ask('count');
        engine.close();
        return { failed, left, loaded, again };
      });
      assert.match(found.failed, /no room/);
      assert.deepEqual([found.left, found.loaded, found.again], [0, 2, 2]);
    },
  },
  {
    name: 'a packed model that cannot be ranked with is said, and the training goes on',
    run: async ({ page, base }) => {
      await page.route('**/worker-rank.js', async (route) => {
        const response = await route.fetch();
        await route.fulfill({ response, body: (await response.text()).replace('use({ file, name }, job) {', "use({ file, name }, job) { if (file) throw new Error('there is no room for it');") });
      });
      await opened({ page, base });
      await page.selectOption('#train-bits', '8');
      await page.click('#train-go');
      await reached(page, 1);
      await page.click('#train-go');
      await page.waitForFunction(() => /Paused/.test(document.querySelector('.train-state').textContent));
      await page.click('#train-use');
      await page.waitForFunction(() => /There is no room for it\./.test(document.querySelector('.train-state').textContent));
      const [saved] = await Promise.all([page.waitForEvent('download'), page.click('#train-save')]);
      assert.equal(saved.suggestedFilename(), 'trained-here.int8.safetensors');
      const before = await steps(page);
      await page.click('#train-go');
      await reached(page, before + 1);
    },
  },
  {
    name: 'a learning rate that is too large is said in one sentence, and starting over helps',
    run: async ({ page, base }) => {
      await opened({ page, base });
      await page.fill('#train-rate', '-0.5');
      await page.click('#train-go');
      await page.waitForSelector('.train-state.bad');
      assert.match(await page.textContent('.train-state'), /^The loss became .* smaller learning rate\.$/);
      assert.ok(await page.isDisabled('#train-go'));
      assert.ok(await page.isDisabled('#train-save'));
      await page.click('#train-reset');
      await page.fill('#train-rate', '-2');
      await page.click('#train-go');
      await reached(page, 20);
    },
  },
];
