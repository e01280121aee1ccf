// Every shader through the browser's own compiler, and on all cases of its op against the plain Rust twins: the
// portable texts, and the variants that need no subgroups (browsers give wgpu none).
import assert from 'node:assert/strict';

const check = (page, name, only) =>
  page.evaluate(([name, only]) => dqrm.check(name, undefined, 'gpu', only), [name, only]).then(JSON.parse);

/** Errors of a text. */
const compile = (page, code) =>
  page.evaluate(async (code) => {
    globalThis.device ??= await (await navigator.gpu.requestAdapter()).requestDevice();
    device.pushErrorScope('validation');
    const { messages } = await device.createShaderModule({ code }).getCompilationInfo();
    await device.popErrorScope();
    return messages.filter((m) => m.type === 'error').map((m) => `${m.lineNum}:${m.linePos}: ${m.message}`);
  }, code);

/** Runs the cases of some names, or `only` one, and fails with all that differ. */
async function all(page, names, note, only) {
  let cases = 0;
  const wrong = [];
  for (const name of names) {
    const began = performance.now();
    const answer = await check(page, name, only);
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
    name: 'every variant without subgroups compiles, and agrees with its twin where SwiftShader is quick enough',
    timeout: 300,
    run: async ({ open, note }) => {
      const page = await open();
      const kernels = JSON.parse(await page.evaluate(() => dqrm.kernels()));
      const variants = kernels.flatMap((k) => k.variants);
      const plain = variants.filter((v) => v.subgroup === null);
      assert.ok(plain.length >= 10, `${plain.length} variants`);
      for (const { name, source } of plain) {
        assert.deepEqual(await compile(page, source), [], name);
      }
      const tiles = plain.map((v) => v.name).filter((name) => /_tiles\d/.test(name));
      const rest = plain.map((v) => v.name).filter((name) => !tiles.includes(name));
      await all(page, rest, note);
      // SwiftShader takes 4 to 12 s to make code of such a text, each time. One case of each product shows what a browser's
      // compiler makes of it; `cargo test --test variants` runs every case of all of them.
      const run = tiles.filter((name) => name.endsWith('_tiles32_mixed'));
      assert.ok(run.length >= 3, run.join(', '));
      for (const name of run) {
        const cases = JSON.parse(await page.evaluate((name) => dqrm.cases(name, 'gpu'), name));
        const small = cases.filter((c) => c.flops <= 1e6).sort((a, b) => b.flops - a.flops)[0];
        await all(page, [name], note, small.name);
      }
      const subgroups = variants.filter((v) => v.subgroup !== null).map((v) => v.name);
      note(`compiled and not run: ${tiles.filter((name) => !run.includes(name)).join(', ')}`);
      note(`left out, because browsers give wgpu no subgroups: ${subgroups.join(', ')}`);
    },
  },
];
