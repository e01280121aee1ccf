// The page's second part: a model from a file, from an address and from what was kept; rows scored with it.
import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import { createServer } from 'node:http';
import { dropped, labelledRows, modelFile, opened } from './page-helpers.mjs';

const NAME = 'clicks.int4.safetensors';
const open = (page) => page.waitForFunction(() => document.querySelector('.model-facts p'));
const refused = (page) => page.waitForSelector('#own-model .progress.bad');

/** Fetches a model by its address and waits for the end: what the page says about it. */
async function fetched(page, address) {
  await page.evaluate(() => document.querySelector('.model-facts').replaceChildren());
  await page.fill('#own-url', address);
  await page.press('#own-url', 'Enter');
  await page.waitForFunction(() => document.querySelector('.model-facts p') || document.querySelector('#own-model .progress.bad'));
  return page.evaluate(() => (document.querySelector('.model-facts').textContent || document.querySelector('#own-model .progress-text').textContent));
}

/** Drops so many rows that scoring them takes a while, and waits for the first. */
async function scoringMany(page, base) {
  const [header, ...lines] = (await labelledRows(base, 1000)).toString().trim().split('\n');
  await page.evaluate(([first, block]) => {
    const dataTransfer = new DataTransfer();
    dataTransfer.items.add(new File([`${first}\n`, ...Array(2000).fill(`${block}\n`)], 'many.tsv'));
    document.querySelector('#own-rows .drop').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
  }, [header, lines.join('\n')]);
  await page.waitForFunction(() => /rows\/s/.test(document.querySelector('#own-rows .progress-text').textContent));
}

export const tests = [
  {
    name: 'a dropped model opens; rows with labels give scores, AUC and a file',
    run: async ({ page, base, shot }) => {
      await opened({ page, base });
      assert.ok(await page.isDisabled('#own-example'));
      await dropped(page, '#own-model .drop', 'mine.safetensors', await modelFile(base, NAME));
      await open(page);
      assert.match(await page.textContent('.model-facts'), /mine\.safetensors.*INT4.*Checksums agree/);

      const rows = await labelledRows(base, 3000);
      await dropped(page, '#own-rows .drop', 'rows.tsv', rows);
      await page.waitForSelector('#own-results table');
      const facts = await page.textContent('#own-results .facts');
      assert.match(facts, /rows3,000/);
      assert.match(facts, /AUC0\.\d{4}/);
      assert.match(facts, /log loss\d\.\d{4}/);
      assert.ok(await page.locator('#own-results .bin').count() > 0, 'the histogram is empty');
      const first = await page.textContent('#own-results tbody tr:nth-child(1)');
      assert.match(first, /^1[\d.]+ %click$/);
      await shot('scored');

      const waiting = page.waitForEvent('download');
      await page.click('#own-results button');
      const stream = await (await waiting).createReadStream();
      const text = Buffer.concat(await stream.toArray()).toString();
      const scores = text.trim().split('\n').map(Number);
      assert.equal(scores.length, 3000);
      assert.ok(scores.every((p) => p > 0 && p < 1));
      assert.equal(`${(scores[0] * 100).toFixed(1)} %`, await page.textContent('#own-results tbody tr:nth-child(1) td:nth-child(2)'));

      await dropped(page, '#own-rows .drop', 'rows.tsv.gz', gzipSync(rows));
      await page.waitForFunction((old) => {
        const text = document.querySelector('#own-results .facts')?.textContent ?? '';
        return document.querySelector('#own-results table') && /AUC/.test(text) && text.includes(old);
      }, /AUC0\.\d{4}/.exec(facts)[0]);
    },
  },
  {
    name: 'an altered, a cut and a foreign file are each refused in one sentence',
    run: async ({ page, base }) => {
      await opened({ page, base });
      const file = await modelFile(base, NAME);
      // within the codes of a table, in the middle of its bytes; and in what stands last
      const length = Number(file.readBigUInt64LE(0));
      const header = JSON.parse(file.subarray(8, 8 + length));
      const codes = Object.keys(header).filter((name) => /^emb_l.*codes$/.test(name)).sort((a, b) => header[b].data_offsets[1] - header[a].data_offsets[1])[0];
      const [from, to] = header[codes].data_offsets;
      const flipped = (at) => {
        const bytes = Buffer.from(file);
        bytes[at] ^= 1;
        return bytes;
      };
      const files = { codes: flipped(8 + length + Math.floor((from + to) / 2)), altered: flipped(file.length - 100), cut: file.subarray(0, file.length - 500), foreign: Buffer.from('<html>not a model</html>'), empty: Buffer.alloc(0) };
      const said = new Set();
      for (const [kind, bytes] of Object.entries(files)) {
        await dropped(page, '#own-model .drop', `${kind}.safetensors`, bytes);
        await page.waitForFunction((name) => document.querySelector('#own-model .progress.bad .progress-text')?.textContent.toLowerCase().includes(name), kind);
        const text = await page.textContent('#own-model .progress-text');
        assert.ok(text.length > 20 && text.length < 400 && text.endsWith('.'), text);
        said.add(text);
      }
      assert.equal(said.size, 5);
      assert.equal(await page.locator('.kept li').count(), 0, 'a broken file was kept');
      await dropped(page, '#own-model .drop', 'good.safetensors', file);
      await open(page);
    },
  },
  {
    name: 'a model from an address is kept: the second visit needs no connection, and it can be deleted',
    run: async ({ page, base, note }) => {
      await opened({ page, base });
      const fetched = async () => {
        await page.fill('#own-url', `${base}/model/${NAME}?mine`);
        await page.press('#own-url', 'Enter');
        await open(page);
        return page.textContent('.model-facts');
      };
      assert.match(await fetched(), /from its address/);
      assert.match(await page.textContent('.kept li'), new RegExp(NAME.replaceAll('.', '\\.')));

      await opened({ page, base });
      await page.waitForSelector('.kept li');
      await page.route('**/model/*?mine', (route) => route.abort());
      const again = await fetched();
      assert.match(again, /from the kept copy/);
      note(again);

      await page.click('.kept button:has-text("Delete")');
      await page.waitForFunction(() => !document.querySelector('.kept li'));
      await page.fill('#own-url', `${base}/model/${NAME}?mine`);
      await page.press('#own-url', 'Enter');
      await refused(page);
      assert.match(await page.textContent('#own-model .progress-text'), /could not be fetched/);
    },
    allows: [/ERR_FAILED/],
  },
  {
    name: 'the small model reaches its AUC on clicks it never saw',
    run: async ({ page, base }) => {
      await opened({ page, base });
      await page.click('#own-small');
      await open(page);
      await page.click('#own-example');
      await page.waitForSelector('#own-results table');
      const facts = await page.textContent('#own-results .facts');
      assert.match(facts, /rows5,000/);
      const auc = Number(/AUC(0\.\d{4})/.exec(facts)?.[1]);
      assert.ok(auc > 0.78 && auc < 0.84, facts);
    },
  },
  {
    name: 'scoring many rows can be cancelled, and the model stays open',
    run: async ({ page, base }) => {
      await opened({ page, base });
      await dropped(page, '#own-model .drop', 'mine.safetensors', await modelFile(base, NAME));
      await open(page);
      await scoringMany(page, base);
      await page.click('#own-rows .progress button');
      await page.waitForFunction(() => document.querySelector('#own-rows .progress-text').textContent === 'Cancelled.');
      await dropped(page, '#own-rows .drop', 'few.tsv', await labelledRows(base, 50));
      await page.waitForSelector('#own-results table');
      assert.match(await page.textContent('#own-results .facts'), /rows50/);
    },
  },
  {
    name: 'a model that is opened while rows are scored takes the place, and others can be opened after it',
    timeout: 120,
    run: async ({ page, base }) => {
      await opened({ page, base }, '?device=gpu');
      const file = await modelFile(base, NAME);
      const takes = async (name) => {
        await dropped(page, '#own-model .drop', name, file);
        await page.waitForFunction((wanted) => document.querySelector('.model-facts .name')?.textContent === wanted
          || document.querySelector('#own-model .progress.bad'), name);
        assert.equal(await page.textContent('.model-facts .name'), name, await page.textContent('#own-model .progress-text'));
      };
      await takes('first.safetensors');
      for (const name of ['second.safetensors', 'third.safetensors']) {
        await scoringMany(page, base);
        await takes(name);
        await page.waitForFunction(() => !document.querySelector('#own-rows .progress.on'));
      }
      await dropped(page, '#own-rows .drop', 'few.tsv', await labelledRows(base, 50));
      await page.waitForSelector('#own-results table');
      assert.match(await page.textContent('#own-results .facts'), /rows50/);
    },
  },
  {
    name: 'a new model is taken from the worker only between two pieces of rows',
    timeout: 120,
    run: async ({ page, base }) => {
      await opened({ page, base }, '?device=gpu');
      const rows = (await labelledRows(base, 20_000)).toString();
      const found = await page.evaluate(async ([text, url]) => {
        const { Engine } = await import('/engine.js');
        const engine = new Engine('gpu', () => {});
        await engine.call('start', { device: 'gpu' });
        await engine.call('model.open', { url });
        let opening = null;
        const began = new Promise((resolve) => { opening = resolve; });
        const scoring = engine.call('rows.score', { file: new File([text], 'rows.tsv') }, { progress: opening }).then(() => 'scored', (error) => error.name);
        await began;
        const second = await engine.call('model.open', { url }).then(({ from }) => from, (error) => error.message);
        const all = [await scoring, second];
        const { rows } = await engine.call('rows.score', { file: new File([text.slice(0, text.indexOf('\n', 5000) + 1)], 'few.tsv') });
        engine.close();
        return [...all, rows > 10];
      }, [rows, `${base}/model/${NAME}`]);
      assert.deepEqual(found, ['Cancelled', 'address', true]);
    },
  },
  {
    name: 'a kept copy is taken while the server has its version, and is not lost to one that comes in pieces',
    allows: [/ERR_FAILED/],
    run: async ({ page, base }) => {
      await opened({ page, base });
      const address = `${base}/model/${NAME}?mine`;
      const file = await modelFile(base, NAME);
      let answer = { body: file };
      await page.route('**/model/*?mine', (route) => (answer ? route.fulfill(answer) : route.abort()));
      assert.match(await fetched(page, address), /from its address/);
      assert.match(await fetched(page, address), /from its address/, 'an answer without a version is none that was kept');
      answer = { body: file, headers: { etag: '"1"' } };
      assert.match(await fetched(page, address), /from its address/);
      assert.match(await fetched(page, address), /from the kept copy/);
      await page.waitForFunction(() => document.querySelectorAll('.kept li').length === 1);
      answer = { body: file.subarray(0, file.length - 500), headers: { etag: '"2"' } };
      assert.match(await fetched(page, address), /ends|bytes|complete|short/i);
      answer = null;
      assert.match(await fetched(page, address), /from the kept copy/);
    },
  },
  {
    name: 'another server may compress what it sends',
    run: async ({ page, base }) => {
      await opened({ page, base });
      const zipped = gzipSync(await modelFile(base, NAME));
      const server = createServer((_request, response) => {
        response.writeHead(200, { 'access-control-allow-origin': '*', 'content-encoding': 'gzip', 'content-length': zipped.length }).end(zipped);
      });
      await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
      try {
        assert.match(await fetched(page, `http://127.0.0.1:${server.address().port}/${NAME}`), /Checksums agree/);
      } finally {
        server.close();
      }
    },
  },
  {
    name: 'where the browser refuses its storage a model opens all the same, and the page says that it is not kept',
    run: async ({ page, base }) => {
      await page.route('**/worker-cache.js', async (route) => {
        const response = await route.fetch();
        const refusing = "navigator.storage.getDirectory = async () => { throw new DOMException('storage is refused', 'SecurityError'); };\n";
        await route.fulfill({ response, body: refusing + await response.text() });
      });
      await opened({ page, base });
      // with a version, so that a kept copy would be looked for
      const file = await modelFile(base, NAME);
      await page.route('**/model/*?mine', (route) => route.fulfill({ body: file, headers: { etag: '"1"' } }));
      assert.match(await fetched(page, `${base}/model/${NAME}?mine`), /from its address.*Not kept for the next visit: storage is refused/);
    },
  },
  {
    name: 'an address that leads nowhere is said in one sentence',
    allows: [/404/],
    run: async ({ page, base }) => {
      await opened({ page, base });
      await page.fill('#own-url', `${base}/nothing.safetensors`);
      await page.press('#own-url', 'Enter');
      await refused(page);
      assert.match(await page.textContent('#own-model .progress-text'), /nothing\.safetensors.*404/);
    },
  },
];
