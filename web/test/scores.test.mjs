// A packed model in the browser against probabilities of the same rows that were computed outside of it
// (tests/packed; `dqrm predict` is held against the same file).
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';

const file = (name) => readFile(fileURLToPath(new URL(`../../tests/packed/${name}`, import.meta.url)));

const agrees = (device) => async ({ open, note }) => {
  const page = await open();
  const model = (await file('v1.safetensors')).toString('base64');
  const rows = (await file('rows.csv')).toString();
  const wanted = (await file('probabilities.txt')).toString().trim().split('\n').map(Number);
  const found = await page.evaluate(async ([base64, text, where]) => {
    const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
    const incoming = new globalThis.dqrm.Incoming(where, 64, 'v1.safetensors', bytes.length);
    for (let at = 0; at < bytes.length; at += 1000) await incoming.push(bytes.subarray(at, at + 1000));
    const scorer = await incoming.finish();
    scorer.begin('rows.csv');
    const all = await scorer.push(new TextEncoder().encode(text), true);
    return { engine: JSON.parse(scorer.describe()).engine, all: [...all] };
  }, [model, rows, device]);
  assert.equal(found.engine, device);
  assert.equal(found.all.length, wanted.length);
  const worst = Math.max(...wanted.map((p, row) => Math.abs(p - found.all[row])));
  note(`${wanted.length} rows, the largest difference is ${worst.toExponential(1)}`);
  assert.ok(worst <= 1e-6, `the largest difference is ${worst}`);
};

export const tests = [
  { name: 'INT4 on the CPU engine gives the probabilities of outside', run: agrees('cpu') },
  { name: 'INT4 on the adapter gives the probabilities of outside', run: agrees('gpu') },
];
