// The page's modules that need no page: what the curves say, ticks, rows and addresses, numbers as text.
import assert from 'node:assert/strict';
import { ticks } from '../page/chart.js';
import { Curve, story } from '../page/curves.js';
import { binary, bytes, duration, large } from '../page/dom.js';
import { addressOf, rowsOf, visitorFrom } from '../page/features.js';
import { sentence } from '../page/widgets.js';

function curve(...aucs) {
  const made = new Curve();
  aucs.forEach((auc, epoch) => made.evaluated(epoch + 1, auc));
  return made;
}

const columns = [
  { name: 'pages', label: 'Pages', kind: 'context', type: 'number', min: 1, max: 9 },
  { name: 'device', label: 'Device', kind: 'visitor', type: 'category', values: ['phone', 'in bed & on'] },
  { name: 'brand', label: 'Brand', kind: 'ad', type: 'category', values: ['Elm'] },
  { name: 'interests', label: 'Interests', kind: 'visitor', type: 'set', values: ['films', 'pets', 'cars'] },
];
const visitor = { pages: 3, device: 'phone', interests: ['films', 'cars'] };

export const tests = [
  {
    name: 'the story fits the curves',
    run: async () => {
      assert.match(story(new Curve(), new Curve(), 'INT4'), /^Press Train/);
      assert.match(story(curve(0.7, 0.75), curve(0.71, 0.76), 'INT4'), /^Both still learn.*0\.7500 in INT4, 0\.7600 in FP32/);
      assert.match(story(curve(0.75, 0.756), curve(0.76, 0.74), 'INT4'), /^FP32 was at its best with 0\.7600 after 1\.0 epochs and has lost 0\.0200.*INT4 holds at 0\.7560/);
      assert.match(story(curve(0.76, 0.75), curve(0.76, 0.73), 'INT8'), /^Both are past their best.*INT8 by 0\.0100.*which is 0\.0200 less/);
      assert.match(story(curve(0.76, 0.72), curve(0.75, 0.73), 'INT4'), /which is more/);
      assert.match(story(curve(0.76, 0.7), curve(0.75, 0.76), 'INT2'), /^INT2 is 0\.0600 below its best.*FP32 stands at 0\.7600/);
    },
  },
  {
    name: 'a smoothed loss weighs turns by their steps, and long curves keep their mean',
    run: async () => {
      const made = new Curve();
      made.trained({ epoch: 0.01, loss: 1, n: 9, ms: 10 });
      made.trained({ epoch: 0.02, loss: 0, n: 1, ms: 10 });
      assert.ok(Math.abs(made.loss()[1][1] - 0.9) < 1e-12);
      const long = new Curve();
      for (let turn = 1; turn <= 5000; turn += 1) long.trained({ epoch: turn / 100, loss: turn % 2, n: 1, ms: 1 });
      const points = long.loss();
      assert.ok(points.length <= 801 && points.at(-1)[0] === 50);
      assert.ok(Math.abs(points.at(-1)[1] - 0.5) < 0.05);
    },
  },
  {
    name: 'rows, addresses and ticks',
    run: async () => {
      const format = { separator: '\t', multi_hot_separator: ',' };
      assert.equal(rowsOf(columns, [{ title: 'Elm', values: { brand: 'Elm' } }], visitor, format), '3\tphone\tElm\tfilms,cars\n');
      const other = { pages: 9, device: 'in bed & on', interests: [] };
      assert.deepEqual(visitorFrom(addressOf(columns, other), columns, visitor), other);
      assert.deepEqual(visitorFrom('#pages=999&device=toaster&interests=pets,<b>', columns, visitor), { pages: 9, device: 'phone', interests: ['pets'] });
      assert.deepEqual(ticks(0, 12, 4).values, [0, 5, 10]);
      assert.equal(ticks(0.701, 0.709, 4).digits, 3);
    },
  },
  {
    name: 'numbers and sentences as text',
    run: async () => {
      assert.deepEqual([94_472, 270_100_616, 1_100_000, 12].map(bytes), ['94 KB', '270 MB', '1.1 MB', '12 bytes']);
      assert.deepEqual([2 ** 30, 128 * 2 ** 20, 2 ** 32 - 4].map(binary), ['1 GiB', '128 MiB', '4 GiB']);
      assert.deepEqual([0.423, 4.23, 42.3, 1340].map(duration), ['0.42 ms', '4.2 ms', '42 ms', '1.3 s']);
      assert.equal(large(33_762_577), '33.8 million');
      assert.equal(sentence('the device was lost'), 'The device was lost.');
      assert.equal(sentence('a.safetensors is cut short'), 'a.safetensors is cut short.');
    },
  },
];
