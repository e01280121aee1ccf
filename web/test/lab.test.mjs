// The shader corner: a mistake in a text is found, in its place; a text that never ends leaves the next run a device.
import assert from 'node:assert/strict';

const listed = async (page, name) => JSON.parse(await page.evaluate(() => dqrm.kernels())).find((k) => k.name === name);
const check = (page, name, text, device = 'gpu') =>
  page.evaluate(([name, text, device]) => dqrm.check(name, text, device), [name, text, device]).then(JSON.parse);
const time = (page, name, text, seconds = 0.2, device = 'gpu') =>
  page.evaluate(([name, text, seconds, device]) => dqrm.time(name, text, seconds, device), [name, text, seconds, device]).then(JSON.parse);
const replaced = (source, from, to) => {
  assert.ok(source.includes(from), from);
  return source.replace(from, to);
};
const lineOf = (source, part) => source.slice(0, source.indexOf(part)).split('\n').length;

export const tests = [
  {
    name: 'the list says what a page shows',
    run: async ({ open }) => {
      const kernel = await listed(await open(), 'concat_forward');
      assert.equal(kernel.op, 'concat');
      assert.equal(kernel.file, 'concat.wgsl');
      assert.ok(kernel.formula.length > 0 && kernel.cases > 0);
      assert.deepEqual(kernel.workgroup, [64, 1, 1]);
      assert.deepEqual(kernel.bindings[0], { name: 'dense', access: 'read', type: 'f32' });
      assert.ok(kernel.source.includes('fn concat_forward'));
    },
  },
  {
    name: 'the original passes, as an edit too',
    run: async ({ open }) => {
      const page = await open();
      const { source } = await listed(page, 'concat_forward');
      const answer = await check(page, 'concat_forward', source);
      assert.deepEqual([answer.compiled, answer.errors], [true, []]);
      assert.ok(answer.cases.length >= 3 && answer.cases.every((c) => c.passed), JSON.stringify(answer.cases));
    },
  },
  {
    name: 'a planted mistake is found',
    run: async ({ open }) => {
      const page = await open();
      const { source } = await listed(page, 'concat_forward');
      const answer = await check(page, 'concat_forward', replaced(source, 'joined[at] = dense[', 'joined[at] = 0.5 * dense['));
      assert.ok(answer.compiled);
      const wrong = answer.cases.filter((c) => !c.passed);
      assert.ok(wrong.length > 0);
      assert.match(wrong[0].message, /`concat_forward`: `.*`\[\d+\] is .*, expected /);
    },
  },
  {
    name: 'errors stand at the line of the text',
    run: async ({ open, note }) => {
      const page = await open();
      const { source } = await listed(page, 'concat_forward');
      for (const [from, to, message] of [
        ['let b = at / width;', 'let b = at / ;', /expression/],
        ['joined[at] = dense[', 'joined[at] = tense[', /tense/],
        ['joined[at] = dense[', 'joined[at] = at; dense[', /type|convert|assign/],
      ]) {
        const text = replaced(source, from, to);
        const { compiled, errors, cases } = await check(page, 'concat_forward', text);
        assert.deepEqual([compiled, cases], [false, []]);
        note(`${errors[0].line}:${errors[0].column}: ${errors[0].message}`);
        assert.equal(errors[0].line, lineOf(text, to));
        assert.match(errors[0].message, message);
      }
      const open_end = await check(page, 'concat_forward', source.trimEnd().replace(/\}$/, ''));
      assert.equal(open_end.compiled, false);
      assert.ok(open_end.errors[0].line <= source.split('\n').length, JSON.stringify(open_end.errors));
    },
  },
  {
    name: 'what does not fit the kernel is said',
    run: async ({ open, note }) => {
      const page = await open();
      const { source } = await listed(page, 'concat_forward');
      for (const [from, to] of [
        ['@binding(2) var<storage, read> pooled', '@binding(7) var<storage, read> pooled'],
        ['var<storage, read> dense', 'var<storage, read_write> dense'],
        ['@workgroup_size(64)', '@workgroup_size(4096)'],
        ['fn concat_forward', 'fn something'],
        ['struct ConcatParams', '//@ grid concat_forward\nstruct ConcatParams'],
      ]) {
        const { compiled, errors, cases } = await check(page, 'concat_forward', replaced(source, from, to));
        assert.deepEqual([compiled, cases], [false, []], to);
        note(`${errors[0].line}: ${errors[0].message}`);
        assert.ok(errors[0].message.length > 10);
      }
      assert.ok((await check(page, 'concat_forward', source)).cases.every((c) => c.passed), 'and the next run is well');
    },
  },
  {
    name: 'texts are timed in turns',
    run: async ({ open, note }) => {
      const page = await open();
      const { source } = await listed(page, 'matmul_nt');
      const both = await time(page, 'matmul_nt', source);
      note(JSON.stringify(both));
      assert.ok(both.original.median_ms > 0 && both.edited.median_ms > 0 && both.gflops > 0 && both.gbytes_per_s > 0);
      const one = await time(page, 'concat_forward', undefined);
      assert.equal(one.edited, null);
      const cpu = await time(page, 'concat_forward', undefined, 0.2, 'cpu');
      assert.ok(cpu.original.median_ms > 0);
      await assert.rejects(time(page, 'matmul_nt', source.replace('fn matmul_nt(', 'fn matmul_nt(((')), /the text:\d+:\d+/);
      await assert.rejects(time(page, 'no_such', undefined), /no kernel `no_such`/);
    },
  },
  {
    name: 'without a GPU the twins stand in, and a text says what it needs',
    gpu: 'none',
    allows: [/No available adapters/],
    run: async ({ open }) => {
      const page = await open();
      const { source } = await listed(page, 'concat_forward');
      assert.ok((await check(page, 'concat_forward', undefined, 'auto')).cases.every((c) => c.passed));
      await assert.rejects(check(page, 'concat_forward', source, 'auto'), /needs a browser with WebGPU/);
      await assert.rejects(check(page, 'concat_forward', undefined, 'gpu'), /offers no GPU/);
    },
  },
  {
    name: 'a device that is lost is named, and the next run has another',
    allows: [/external Instance reference/],
    run: async ({ open, note }) => {
      const page = await open();
      const { source } = await listed(page, 'concat_forward');
      // Cases until one fails: the crash meets whatever is under way.
      const running = page.evaluate(async () => {
        for (let turn = 0; turn < 100; turn += 1) {
          const answer = JSON.parse(await dqrm.check('concat', undefined, 'gpu').catch((error) => JSON.stringify({ thrown: String(error) })));
          if (answer.thrown) return answer.thrown;
          const failed = answer.cases.find((c) => !c.passed);
          if (failed) return failed.message;
        }
        return 'nothing happened';
      });
      await new Promise((later) => setTimeout(later, 1000));
      const session = await page.context().browser().newBrowserCDPSession();
      await session.send('Browser.crashGpuProcess');
      const said = await running;
      note(said);
      assert.match(said, /lost|cannot open|no GPU|reading back/);
      const answer = await check(page, 'concat_forward', source);
      assert.ok(answer.compiled && answer.cases.every((c) => c.passed), JSON.stringify(answer));
    },
  },
];
