// A large packed model in the page: how long it takes to load, what the browser's processes hold meanwhile, and whether its scores
// are those of `dqrm predict`.
//
//   node large.mjs MODEL.safetensors ROWS.tsv EXPECTED.txt [--dist FOLDER] [--device gpu|cpu]
//
// EXPECTED.txt is what `dqrm predict MODEL.safetensors --data ROWS.tsv` printed. Linux only: memory is read from /proc.
import { chromium } from 'playwright-core';
import { readFile, readdir, stat } from 'node:fs/promises';
import { basename, dirname, join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { serve } from './server.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: { dist: { type: 'string', default: join(here, '..', 'dist') }, device: { type: 'string', default: 'gpu' } },
});
const [model, rows, expected] = positionals;
if (!expected) throw new Error('three files are needed: MODEL.safetensors ROWS.tsv EXPECTED.txt');

/** Proportional memory of Chromium's processes by kind, in MB. */
async function memory() {
  const kinds = {};
  for (const pid of (await readdir('/proc')).filter((name) => /^\d+$/.test(name))) {
    try {
      const command = (await readFile(`/proc/${pid}/cmdline`, 'utf8')).replaceAll('\0', ' ');
      if (!/chrom/.test(command.split(' ')[0])) continue;
      const kind = /--type=([a-z-]+)/.exec(command)?.[1] ?? 'browser';
      const kb = Number(/^Pss:\s+(\d+)/m.exec(await readFile(`/proc/${pid}/smaps_rollup`, 'utf8'))?.[1] ?? 0);
      kinds[kind] = (kinds[kind] ?? 0) + kb / 1024;
    } catch {
      // it ended meanwhile
    }
  }
  return kinds;
}

/** The most of each kind while `work` goes on. */
async function peak(work) {
  const most = {};
  let going = true;
  const watch = (async () => {
    while (going) {
      for (const [kind, mb] of Object.entries(await memory())) most[kind] = Math.max(most[kind] ?? 0, mb);
      await new Promise((done) => setTimeout(done, 100));
    }
  })();
  await work;
  going = false;
  await watch;
  return most;
}

const shown = (kinds) => Object.entries(kinds).filter(([, mb]) => mb >= 30).map(([kind, mb]) => `${kind} ${mb.toFixed(0)} MB`).join(', ');

const { base, close } = await serve(options.dist, join(here, 'pages'));
const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium';
const browser = await chromium.launch({ executablePath, args: ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'] });
const page = await browser.newPage();
await page.goto(`${base}/?device=${options.device}`);
await page.waitForSelector('#timing b', { timeout: 60_000 });
console.log(`before: ${shown(await memory())}`);

const began = performance.now();
const loading = (async () => {
  await page.setInputFiles('#own-model input[type=file]', model);
  await page.waitForSelector('.model-facts p', { timeout: 300_000 });
})();
const most = await peak(loading);
const { size } = await stat(model);
const seconds = (performance.now() - began) / 1000;
console.log(`loaded ${basename(model)}, ${(size / 1e6).toFixed(1)} MB, in ${seconds.toFixed(1)} s; the most meanwhile: ${shown(most)}`);
console.log(`after: ${shown(await memory())}`);
console.log((await page.textContent('.model-facts')).trim());

const scoring = performance.now();
await page.setInputFiles('#own-rows input[type=file]', rows);
await page.waitForSelector('#own-results table', { timeout: 600_000 });
console.log(`rows scored after ${((performance.now() - scoring) / 1000).toFixed(1)} s: ${(await page.textContent('#own-results .facts')).trim()}`);
const waiting = page.waitForEvent('download');
await page.click('#own-results button');
const text = Buffer.concat(await (await (await waiting).createReadStream()).toArray()).toString();
const found = text.trim().split('\n').map(Number);
const wanted = (await readFile(expected, 'utf8')).trim().split('\n').map(Number);
const worst = wanted.reduce((most, p, row) => Math.max(most, Math.abs(p - found[row])), found.length === wanted.length ? 0 : Infinity);
console.log(`${found.length} scores, ${wanted.length} expected; they differ by at most ${worst.toExponential(1)}`);
await browser.close();
close();
process.exit(worst <= 1e-5 ? 0 : 1);
