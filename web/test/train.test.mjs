// A model trained in the browser has the losses of the same model trained outside of one, and its packed file does on other
// clicks what the trainer says of its own.
//
// curves.json holds what `cargo run --example curve` in web/ prints for its settings: `-- cpu 50 25 SETTINGS` under "steps",
// `-- cpu 3130 313 SETTINGS` under "epochs".
import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';

const curves = JSON.parse(await readFile(new URL('./curves.json', import.meta.url)));

/** Trains as the native program did, and packs the result. */
function train({ device, settings, every, steps }) {
  return (async () => {
    const trainer = await dqrm.Trainer.load(device, JSON.stringify(settings));
    const [losses, evaluations] = [[], []];
    let milliseconds = 0;
    for (let step = 0; step < steps; ) {
      const began = performance.now();
      const done = JSON.parse(await trainer.steps(every));
      milliseconds += performance.now() - began;
      step = done.step;
      losses.push(...done.losses);
      evaluations.push(JSON.parse(await trainer.evaluate()));
    }
    const described = JSON.parse(trainer.describe());
    const packed = settings.bits ? (await trainer.pack()).length : 0;
    trainer.free();
    return { losses, evaluations, described, packed, milliseconds };
  })();
}

export const tests = ['cpu', 'gpu'].flatMap((device) =>
  curves.steps.map(({ settings, losses, evaluations }) => ({
    name: `${settings.bits ? `INT${settings.bits}` : 'FP32'} on the ${device} learns as outside of a browser`,
    timeout: 180,
    run: async ({ open, note }) => {
      const page = await open();
      const found = await page.evaluate(train, { device, settings, every: 25, steps: 50 });
      assert.equal(found.described.engine, device);
      assert.equal(found.losses.length, 50);
      const furthest = Math.max(...losses.map((loss, i) => Math.abs(loss - found.losses[i])));
      note(`losses differ by ${furthest.toExponential(1)} at most; ${(found.milliseconds / 50).toFixed(1)} ms a step`);
      assert.ok(furthest < 1e-4, `losses differ by ${furthest}`);
      evaluations.forEach(({ auc, log_loss: logLoss }, i) => {
        assert.ok(Math.abs(auc - found.evaluations[i].auc) < 1e-3, `AUC ${found.evaluations[i].auc}, ${auc} outside of a browser`);
        assert.ok(Math.abs(logLoss - found.evaluations[i].log_loss) < 1e-4);
      });
      assert.equal(found.packed > 0, settings.bits !== null);
    },
  })),
).concat([
  {
    name: 'ten epochs: FP32 learns the clicks by heart, INT4 holds',
    timeout: 240,
    run: async ({ open, note }) => {
      const page = await open();
      const ends = [];
      for (const { settings, evaluations } of curves.epochs) {
        const found = await page.evaluate(train, { device: 'cpu', settings, every: 313, steps: 3130 });
        // the further the way, the more a difference in the last digit grows
        evaluations.forEach(({ auc }, i) => assert.ok(Math.abs(auc - found.evaluations[i].auc) < 0.02, `epoch ${i + 1}: ${auc}, ${found.evaluations[i].auc}`));
        ends.push(found.evaluations.at(-1));
        note(`bits ${settings.bits}: ${found.evaluations.map(({ auc }) => auc.toFixed(3)).join(' ')}, ${(found.milliseconds / 3130).toFixed(1)} ms a step`);
      }
      assert.ok(ends[0].auc > ends[1].auc + 0.02 && ends[0].log_loss < ends[1].log_loss / 1.5, JSON.stringify(ends));
    },
  },
  {
    name: 'settings that cannot be are refused with a sentence',
    run: async ({ open }) => {
      const page = await open();
      const refused = (settings) =>
        page.evaluate((text) => dqrm.Trainer.load('cpu', text).then(() => 'taken', (error) => error.message), settings);
      assert.match(await refused('{"bits": 3}'), /^`bits` is 3; 2, 4, 8, 16 and null \(FP32\) are possible$/);
      assert.match(await refused('{"batch": 0}'), /^`batch` is 0/);
      assert.match(await refused('no JSON'), /^the settings cannot be used/);
    },
  },
  ...['cpu', 'gpu'].map((device) => ({
    name: `the packed file does on the ${device} what the trainer says of the model`,
    timeout: 120,
    run: async ({ open, note }) => {
      const page = await open();
      const found = await page.evaluate(async (device) => {
        const rows = new Uint8Array(await (await fetch('/model/rows.tsv')).arrayBuffer());
        const trainer = await dqrm.Trainer.load(device, '{"learning_rate": 0.03, "train": 40000, "validation": 10000}');
        const scored = async () => {
          const bytes = await trainer.pack();
          const incoming = new dqrm.Incoming(device, 1024, 'model', bytes.length);
          await incoming.push(bytes);
          const scorer = await incoming.finish();
          scorer.begin('rows.tsv');
          const p = await scorer.push(rows, true);
          const summary = JSON.parse(dqrm.summary(p, scorer.labels()));
          scorer.free();
          return { rows: p.length, said: JSON.parse(await trainer.evaluate()), summary };
        };
        const results = [await scored()];
        await trainer.steps(300);
        results.push(await scored());
        trainer.free();
        return results;
      }, device);
      const [first, then] = found;
      note(`AUC ${then.said.auc.toFixed(3)}, of the file on 5,000 other clicks ${then.summary.auc.toFixed(3)}`);
      // what is predicted in the mean has no noise of clicks in it: 0.002 is its standard error on 5,000 rows
      const mean = ({ calibration, positive_rate: rate }) => calibration * rate;
      for (const { rows, said, summary } of found) {
        assert.equal(rows, 5000);
        assert.ok(Math.abs(mean(said) - mean(summary)) < 0.01, `${mean(summary)} is predicted, ${mean(said)} by the trainer`);
        assert.ok(Math.abs(said.log_loss - summary.log_loss) < 0.04 && Math.abs(said.auc - summary.auc) < 0.04, JSON.stringify({ said, summary }));
      }
      assert.ok(then.summary.auc > first.summary.auc + 0.2, 'the packed file is not the trained model');
    },
  })),
  {
    name: 'a model that was trained here ranks rows of text',
    timeout: 120,
    run: async ({ open, base }) => {
      const page = await open();
      const text = await (await fetch(`${base}/model/clicks.json`)).text();
      const found = await page.evaluate(async (text) => {
        const { columns, ads, visitor } = JSON.parse(text);
        const cell = (value) => (Array.isArray(value) ? value.join(',') : String(value));
        const rows = ads.map(({ values }) => columns.map(({ name }) => cell(name in visitor ? visitor[name] : values[name])).join('\t'));
        const trainer = await dqrm.Trainer.load('cpu', '{"train": 10000, "validation": 100}');
        await trainer.steps(150);
        const rank = async (bytes) => {
          const incoming = new dqrm.Incoming('cpu', 128, 'model', bytes.length);
          await incoming.push(bytes);
          return Array.from(await (await incoming.finish()).rank(rows.join('\n')));
        };
        const packed = new Uint8Array(await (await fetch('/model/clicks.int4.safetensors')).arrayBuffer());
        return { here: await rank(await trainer.pack()), shipped: await rank(packed), topics: ads.map((ad) => ad.values.topic) };
      }, text);
      const first = (scores) => scores.map((p, i) => [p, found.topics[i]]).sort((a, b) => b[0] - a[0]).slice(0, 10).map(([, topic]) => topic);
      assert.equal(found.here.length, 128);
      assert.ok(found.here.every((p) => p > 0 && p < 1));
      // the first visitor is a gamer on a site about games who likes films
      assert.ok(first(found.shipped).filter((topic) => topic === 'gaming').length >= 5, first(found.shipped).join());
    },
  },
]);
