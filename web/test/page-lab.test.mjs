// The page's fourth part: a planted bug is caught, an error stands at its line, edits are kept.
import assert from 'node:assert/strict';
import { opened } from './page-helpers.mjs';

async function kernel(page, name) {
  await page.fill('#lab-search', name);
  await page.click(`#kernel-${name}`);
  await page.fill('#lab-search', '');
  return page.inputValue('#lab-text');
}

async function ran(page) {
  await page.click('#lab-run');
  await page.waitForSelector('#lab-results .verdict-line', { timeout: 90_000 });
  return page.textContent('#lab-results .verdict-line');
}

export const tests = [
  {
    name: 'the original agrees, a planted bug is caught, and a syntax error stands at its line',
    timeout: 180,
    run: async ({ page, base, shot, note }) => {
      await opened({ page, base });
      const text = await kernel(page, 'matmul_nt');
      note(await ran(page));
      assert.match(await page.textContent('#lab-results .verdict-line'), /original agrees/);
      await page.waitForSelector('.times table', { timeout: 60_000 });
      await page.waitForSelector('#lab-run:enabled');

      const planted = text.replace(/select\(v, 0\.0, v <= 0\.0\)/, 'select(v, 0.5, v <= 0.0)');
      assert.notEqual(planted, text);
      await page.fill('#lab-text', planted);
      const caught = await ran(page);
      note(caught);
      assert.match(caught, /differs from its twin on \d+ of/);
      assert.equal(await page.locator('.times table').count(), 0, 'a wrong kernel was timed');

      await page.reload();
      await page.waitForSelector('#kernel-matmul_nt');
      assert.equal(await page.inputValue('#lab-text'), planted, 'the edit was not kept');

      const lines = text.split('\n');
      const at = lines.findIndex((line) => /fn relu/.test(line)) + 1;
      lines[at] = '    return not_there;';
      await page.fill('#lab-text', lines.join('\n'));
      assert.match(await ran(page), /does not compile/);
      assert.equal(await page.textContent('.numbers .wrong >> nth=0'), String(at + 1));
      assert.match(await page.textContent('.errors li'), new RegExp(`line ${at + 1}\\b.*not_there`, 's'));
      await shot('error');

      await page.click('#lab-reset');
      assert.equal(await page.inputValue('#lab-text'), text);
    },
  },
  {
    name: 'the list keeps the focus when a kernel is chosen, and Escape goes where something can be done',
    gpu: 'none',
    allows: [/No available adapters/],
    run: async ({ page, base }) => {
      await opened({ page, base });
      const focused = () => page.evaluate(() => document.activeElement.id);
      for (const key of ['Enter', ' ']) {
        const name = await page.evaluate(() => {
          const other = document.querySelector('.kernels [aria-selected="false"]');
          other.focus();
          return other.dataset.name;
        });
        await page.keyboard.press(key);
        assert.equal(await page.textContent('#lab-name'), name);
        assert.equal(await focused(), `kernel-${name}`);
      }
      assert.ok(await page.isDisabled('#lab-run'));
      await page.focus('#lab-text');
      await page.keyboard.press('Escape');
      assert.equal(await focused(), 'lab-search');
    },
  },
  {
    name: 'a case without a result is not called a difference',
    run: async ({ page, base }) => {
      await page.route('**/worker.js', async (route) => {
        const response = await route.fetch();
        const silent = "{ compiled: true, errors: [], cases: [{ name: 'one', passed: true, message: '' }, { name: 'two', passed: false, message: 'the device gave no answer within 20 s: a loop may never end, or the work is too much for it' }] }";
        await route.fulfill({ response, body: (await response.text()).replace('check: checkKernel', `check: () => (${silent})`) });
      });
      await opened({ page, base });
      assert.match(await ran(page), /not every case came to a result.*On the case two, the device gave no answer within 20 s/);
      assert.equal(await page.locator('#lab-results td:text-is("differs")').count(), 0);
    },
  },
  {
    name: 'in the editor Tab indents and Escape leaves',
    run: async ({ page, base }) => {
      await opened({ page, base });
      const text = await page.inputValue('#lab-text');
      await page.focus('#lab-text');
      await page.evaluate(() => document.querySelector('#lab-text').setSelectionRange(0, 0));
      await page.keyboard.press('Tab');
      assert.equal(await page.inputValue('#lab-text'), `    ${text}`);
      await page.keyboard.press('Escape');
      assert.equal(await page.evaluate(() => document.activeElement.id), 'lab-run');
      await page.click('#lab-reset');
      assert.equal(await page.inputValue('#lab-text'), text);
    },
  },
];
