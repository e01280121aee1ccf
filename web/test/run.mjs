// Runs the tests of web/dist in an installed Chromium, on SwiftShader, which needs no graphics adapter.
//
//   node run.mjs [--only NAME] [--dist FOLDER] [--shots FOLDER] [--list]
//
// --only runs the files and tests whose name contains NAME. Screenshots go to --shots (test/shots).
// CHROMIUM names the browser when it is not in the PATH.
//
// A file NAME.test.mjs exports `tests`, a list of {name, run, gpu, allows, timeout}:
//   run      async ({page, base, shot, note, open}) => …, throws when something is wrong. `page` is a fresh page of a fresh
//            profile, `base` the address of web/dist, `shot(name)` takes a screenshot, `note(text)` prints a line,
//            `open()` is `page` with the module as `globalThis.dqrm`, on an empty page.
//   gpu      'software' (the default), 'none' (navigator.gpu gives no adapter), 'absent' (there is no navigator.gpu, because
//            the page comes from an address that is not secure)
//   allows   regular expressions of console errors and page errors that are part of the test; any other fails it
//   timeout  seconds, 60 by default
import { chromium } from 'playwright-core';
import { readdir, mkdir, access } from 'node:fs/promises';
import { delimiter, dirname, join } from 'node:path';
import { fileURLToPath, pathToFileURL } from 'node:url';
import { parseArgs } from 'node:util';
import { serve } from './server.mjs';

const here = dirname(fileURLToPath(import.meta.url));
const FLAGS = {
  software: ['--enable-unsafe-webgpu', '--use-webgpu-adapter=swiftshader'],
  none: [],
  absent: ['--host-resolver-rules=MAP plain.test 127.0.0.1'],
};

const { values: options } = parseArgs({
  options: {
    only: { type: 'string', default: '' },
    dist: { type: 'string', default: join(here, '..', 'dist') },
    shots: { type: 'string', default: join(here, 'shots') },
    list: { type: 'boolean', default: false },
  },
});

async function exists(path) {
  return access(path).then(() => true, () => false);
}

async function browserPath() {
  if (process.env.CHROMIUM) return process.env.CHROMIUM;
  for (const name of ['chromium', 'chromium-headless-shell', 'chromium-browser', 'google-chrome']) {
    for (const folder of (process.env.PATH ?? '').split(delimiter)) {
      if (await exists(join(folder, name))) return join(folder, name);
    }
  }
  throw new Error('no Chromium in the PATH; install it (Debian: apt-get install chromium) or name it in CHROMIUM');
}

async function listed() {
  const found = [];
  for (const file of (await readdir(here)).filter((f) => f.endsWith('.test.mjs')).sort()) {
    const topic = file.slice(0, -'.test.mjs'.length);
    const { tests } = await import(pathToFileURL(join(here, file)).href);
    for (const test of tests) found.push({ topic, gpu: 'software', allows: [], timeout: 60, ...test });
  }
  return found.filter((t) => `${t.topic}: ${t.name}`.includes(options.only));
}

function within(seconds, promise) {
  let timer;
  const late = new Promise((_, fail) => {
    timer = setTimeout(() => fail(new Error(`not done after ${seconds} s`)), 1000 * seconds);
  });
  return Promise.race([promise, late]).finally(() => clearTimeout(timer));
}

/** What went wrong, as a list of texts. */
async function attempt(test, browser, base) {
  const context = await browser.newContext({ acceptDownloads: true });
  const page = await context.newPage();
  const wrong = [];
  const complaint = (text) => {
    if (!test.allows.some((allowed) => allowed.test(text))) wrong.push(text);
  };
  page.on('console', (message) => message.type() === 'error' && complaint(`console: ${message.text()} (${message.location().url})`));
  page.on('pageerror', (error) => complaint(`page: ${error.message}`));
  page.on('crash', () => complaint('the page crashed'));
  const shot = (name) => page.screenshot({ path: join(options.shots, `${test.topic}-${name}.png`), fullPage: true });
  const note = (text) => console.log(`    ${text}`);
  const open = async () => {
    await page.goto(`${base}/test/blank.html`);
    await page.evaluate(async () => {
      globalThis.dqrm = await import('/pkg/dqrm_web.js');
      await globalThis.dqrm.default();
    });
    return page;
  };
  try {
    await within(test.timeout, test.run({ page, base, shot, note, open }));
  } catch (error) {
    wrong.unshift(error.stack ?? String(error));
    await within(10, shot('failed')).catch(() => {}); // a picture helps, its absence does not hide the reason
  }
  await within(10, context.close()).catch(() => wrong.push('the page could not be closed'));
  return wrong;
}

const tests = await listed();
if (options.list) {
  tests.forEach((t) => console.log(`${t.topic}: ${t.name}`));
  process.exit(0);
}
if (tests.length === 0) throw new Error(`no test is called \`${options.only}\``);
if (!(await exists(join(options.dist, 'pkg', 'dqrm_web.js')))) throw new Error(`${options.dist} is not built; run web/build`);
await mkdir(options.shots, { recursive: true });
const executablePath = await browserPath();
const { base, close } = await serve(options.dist, join(here, 'pages'));
const browsers = {};
const start = performance.now();
let failed = 0;
for (const test of tests) {
  if (!browsers[test.gpu]?.isConnected()) browsers[test.gpu] = await chromium.launch({ executablePath, args: FLAGS[test.gpu] });
  const began = performance.now();
  const address = test.gpu === 'absent' ? base.replace('127.0.0.1', 'plain.test') : base;
  const wrong = await attempt(test, browsers[test.gpu], address);
  const seconds = ((performance.now() - began) / 1000).toFixed(1);
  console.log(`${wrong.length === 0 ? 'ok  ' : 'FAIL'} ${seconds.padStart(6)} s  ${test.topic}: ${test.name}`);
  wrong.forEach((text) => console.log(text.replace(/^/gm, '         ')));
  failed += wrong.length === 0 ? 0 : 1;
}
const version = Object.values(browsers)[0].version();
for (const browser of Object.values(browsers)) await browser.close();
close();
const seconds = ((performance.now() - start) / 1000).toFixed(0);
console.log(`\n${tests.length - failed} of ${tests.length} browser tests passed in ${seconds} s (Chromium ${version})`);
process.exit(failed === 0 ? 0 : 1);
