// The page's second part: a model from a file, from an address and from what was kept; rows scored with it.
import assert from 'node:assert/strict';
import { gzipSync } from 'node:zlib';
import { dropped, labelledRows, modelFile, opened } from './page-helpers.mjs';

const NAME = 'clicks.int4.safetensors';
const open = (page) => page.waitForFunction(() => document.querySelector('.model-facts p'));
const refused = (page) => page.waitForSelector('#own-model .progress.bad');

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
      const altered = Buffer.from(file);
      altered[altered.length - 100] ^= 1;
      const files = { altered, cut: file.subarray(0, file.length - 500), foreign: Buffer.from('<html>not a model</html>'), empty: Buffer.alloc(0) };
      const said = new Set();
      for (const [kind, bytes] of Object.entries(files)) {
        await dropped(page, '#own-model .drop', `${kind}.safetensors`, bytes);
        await page.waitForFunction((name) => document.querySelector('#own-model .progress.bad .progress-text')?.textContent.toLowerCase().includes(name), kind);
        const text = await page.textContent('#own-model .progress-text');
        assert.ok(text.length > 20 && text.length < 400 && text.endsWith('.'), text);
        said.add(text);
      }
      assert.equal(said.size, 4);
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
      const [header, ...lines] = (await labelledRows(base, 1000)).toString().trim().split('\n');
      await page.evaluate(([first, block]) => {
        const dataTransfer = new DataTransfer();
        dataTransfer.items.add(new File([`${first}\n`, ...Array(2000).fill(`${block}\n`)], 'many.tsv'));
        document.querySelector('#own-rows .drop').dispatchEvent(new DragEvent('drop', { dataTransfer, bubbles: true, cancelable: true }));
      }, [header, lines.join('\n')]);
      await page.waitForFunction(() => /rows\/s/.test(document.querySelector('#own-rows .progress-text').textContent));
      await page.click('#own-rows .progress button');
      await page.waitForFunction(() => document.querySelector('#own-rows .progress-text').textContent === 'Cancelled.');
      await dropped(page, '#own-rows .drop', 'few.tsv', await labelledRows(base, 50));
      await page.waitForSelector('#own-results table');
      assert.match(await page.textContent('#own-results .facts'), /rows50/);
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
