// Every shader through the browser's own compiler, and on all cases of its op against the plain Rust twins: the
// portable texts, and the variants that need no subgroups (browsers give wgpu none).
import assert from 'node:assert/strict';

const check = (page, name) => page.evaluate((name) => dqrm.check(name, undefined, 'gpu'), name).then(JSON.parse);

/** Runs the cases of some names, says what failed. */
async function all(page, names, note) {
  let cases = 0;
  const wrong = [];
  for (const name of names) {
    const began = performance.now();
    const answer = await check(page, name);
    assert.ok(answer.compiled, `${name}: ${JSON.stringify(answer.errors)}`);
    assert.ok(answer.cases.length > 0, `no case runs ${name}`);
    cases += answer.cases.length;
    wrong.push(...answer.cases.filter((c) => !c.passed).map((c) => `${c.name}: ${c.message}`));
    const slowest = answer.cases.reduce((a, b) => (a.seconds > b.seconds ? a : b));
    const seconds = ((performance.now() - began) / 1000).toFixed(1);
    note(`${name.padEnd(28)} ${String(answer.cases.length).padStart(3)} cases ${seconds.padStart(6)} s, the slowest ${slowest.seconds.toFixed(1)} s (${slowest.name})`);
  }
  assert.deepEqual(wrong, []);
  return cases;
}

export const tests = [
  {
    name: 'every kernel compiles and agrees with its twin',
    timeout: 600,
    run: async ({ open, note }) => {
      const page = await open();
      const kernels = JSON.parse(await page.evaluate(() => dqrm.kernels()));
      assert.ok(kernels.length >= 40, `${kernels.length} kernels`);
      const ops = [...new Set(kernels.map((k) => k.op))];
      const cases = await all(page, ops, note);
      note(`${kernels.length} kernels of ${ops.length} ops, ${cases} cases`);
    },
  },
  {
    name: 'every variant without subgroups compiles and agrees with its twin',
    timeout: 600,
    run: async ({ open, note }) => {
      const page = await open();
      const kernels = JSON.parse(await page.evaluate(() => dqrm.kernels()));
      const variants = kernels.flatMap((k) => k.variants);
      const plain = variants.filter((v) => v.subgroup === null);
      assert.ok(plain.length >= 10, `${plain.length} variants`);
      const cases = await all(page, plain.map((v) => v.name), note);
      const left = variants.filter((v) => v.subgroup !== null).map((v) => v.name);
      note(`${plain.length} variants, ${cases} cases; left out, because they need subgroups: ${left.join(', ')}`);
    },
  },
];
