// What the tests of the page share.
import assert from 'node:assert/strict';

/** Opens the page and waits for its first ranking. */
export async function opened({ page, base }, query = '') {
  await page.goto(`${base}/${query}`);
  await page.waitForSelector('#timing b', { timeout: 40_000 });
  // the parts below are handed the engine right after it
  await page.waitForFunction(() => document.querySelector('#lab-name').textContent.trim() !== '');
}

/** The list as a reader sees it: title, probability and place of every ad, the first in rank first. */
export function ranked(page) {
  return page.evaluate(() => [...document.querySelectorAll('.ad')]
    .map((ad) => ({ id: ad.id, title: ad.querySelector('.title').textContent, p: ad.querySelector('.p').textContent, place: Number(ad.getAttribute('aria-posinset')) }))
    .sort((a, b) => a.place - b.place));
}

/** Waits until the list differs from what it was. */
export async function changed(page, before) {
  await page.waitForFunction((old) => [...document.querySelectorAll('.ad .p')].map((p) => p.textContent).join() !== old, before);
}

/** The probabilities shown, in the candidates' order: what `changed` compares with. */
export const shown = (page) => page.evaluate(() => [...document.querySelectorAll('.ad .p')].map((p) => p.textContent).join());

/** A file of the default model. */
export async function modelFile(base, name) {
  const response = await fetch(`${base}/model/${name}`);
  assert.ok(response.ok, `${name}: ${response.status}`);
  return Buffer.from(await response.arrayBuffer());
}

/** Every ad for the default visitor: a line of names, and lines of cells in the model's order. */
export async function plainRows(base) {
  const { columns, ads, visitor, label } = JSON.parse(await modelFile(base, 'clicks.json'));
  const cell = (ad, name) => {
    const value = ad.values[name] ?? visitor[name];
    return Array.isArray(value) ? value.join(',') : String(value);
  };
  return { names: [label, ...columns.map(({ name }) => name)].join('\t'), rows: ads.map((ad) => columns.map(({ name }) => cell(ad, name)).join('\t')) };
}

/** A file of rows with labels: the ads for the default visitor again and again, every third one clicked. */
export async function labelledRows(base, count) {
  const { names, rows } = await plainRows(base);
  const lines = Array.from({ length: count }, (_, row) => `${row % 3 === 0 ? 1 : 0}\t${rows[row % rows.length]}\n`);
  return Buffer.from(`${names}\n${lines.join('')}`);
}

/** Drops a file onto an element, as a hand would. */
export async function dropped(page, selector, name, bytes) {
  const data = await page.evaluateHandle(([file, base64]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(atob(base64), (c) => c.charCodeAt(0))], file));
    return transfer;
  }, [name, bytes.toString('base64')]);
  await page.dispatchEvent(selector, 'drop', { dataTransfer: data });
}

/** How far the page is wider than its window. */
export const overflow = (page) => page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
