// The page as a whole: keyboard, widths, themes, pictures of it.
import assert from 'node:assert/strict';
import { opened, overflow, ranked } from './page-helpers.mjs';

export const tests = [
  {
    name: 'the keyboard reaches everything, and arrows walk through the lists',
    run: async ({ page, base }) => {
      await opened({ page, base });
      const reached = [];
      for (let presses = 0; presses < 90; presses += 1) {
        await page.keyboard.press('Tab');
        const at = await page.evaluate(() => {
          const { activeElement: element } = document;
          const name = element.id || element.getAttribute('aria-label') || element.textContent.trim().slice(0, 24);
          const kind = element.closest('.ads') ? 'ads' : element.closest('.kernels') ? 'kernels' : name;
          const { outlineStyle } = getComputedStyle(element);
          const chip = element.closest('.chip') || element.closest('.editor');
          return { kind, seen: outlineStyle !== 'none' || Boolean(chip), body: element === document.body };
        });
        if (at.body) break;
        assert.ok(at.seen, `focus cannot be seen on ${at.kind}`);
        reached.push(at.kind);
        if (at.kind === 'lab-text') await page.keyboard.press('Escape');
      }
      for (const wanted of ['device', 'theme', 'f-device', 'f-hour', 'ads', 'own-url', 'train-go', 'train-rate', 'lab-search', 'kernels', 'lab-text']) {
        assert.ok(reached.includes(wanted), `${wanted} is not reached: ${reached.join(', ')}`);
      }

      const list = await ranked(page);
      await page.focus(`#${list[0].id}`);
      for (const key of ['ArrowDown', 'ArrowDown', 'ArrowUp']) await page.keyboard.press(key);
      assert.equal(await page.evaluate(() => document.activeElement.id), list[1].id);
      assert.equal(await page.textContent('#seen h3'), list[1].title);
      await page.keyboard.press('End');
      assert.equal(await page.evaluate(() => document.activeElement.id), list[127].id);
      assert.ok(await page.evaluate(() => {
        const row = document.activeElement.getBoundingClientRect();
        const { top, bottom } = document.querySelector('#window').getBoundingClientRect();
        return row.top >= top - 1 && row.bottom <= bottom + 1;
      }), 'the last row is not in sight');

      const name = await page.textContent('#lab-name');
      await page.focus('.kernels [tabindex="0"]');
      await page.keyboard.press('ArrowDown');
      assert.notEqual(await page.textContent('#lab-name'), name);
    },
  },
  ...[['phone', 390, 844], ['narrow', 360, 740], ['desktop', 1440, 900]].map(([name, width, height]) => ({
    name: `nothing is wider than a window of ${width} px, dark and light`,
    run: async ({ page, base, shot }) => {
      await page.setViewportSize({ width, height });
      for (const colorScheme of ['light', 'dark']) {
        await page.emulateMedia({ colorScheme });
        await opened({ page, base });
        assert.ok(await overflow(page) <= 0, `${await overflow(page)} px too wide`);
        await page.waitForTimeout(600);
        await shot(`${name}-${colorScheme}`);
      }
    },
  })),
  {
    name: 'nothing moves while the page loads',
    run: async ({ page, base }) => {
      await page.addInitScript(() => {
        globalThis.shift = 0;
        new PerformanceObserver((list) => list.getEntries().forEach((entry) => { globalThis.shift += entry.value; }))
          .observe({ type: 'layout-shift', buffered: true });
      });
      await opened({ page, base }, '?device=cpu');
      await page.waitForTimeout(800);
      const shift = await page.evaluate(() => globalThis.shift);
      assert.ok(shift < 0.1, `cumulative layout shift ${shift}`);
    },
  },
  {
    name: 'the button changes the theme, and the choice is kept',
    run: async ({ page, base }) => {
      await page.emulateMedia({ colorScheme: 'light' });
      await opened({ page, base });
      const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
      const light = await paper();
      await page.click('#theme');
      const dark = await paper();
      assert.notEqual(dark, light);
      await page.reload();
      assert.equal(await paper(), dark);
    },
  },
];
