const sleep = (ms) => new Promise((done) => setTimeout(done, ms));
const hash = (text) => { let h = 2166136261; for (const c of text) h = Math.imul(h ^ c.charCodeAt(0), 16777619); return ((h >>> 0) / 2 ** 32 - 0.5) * 2; };
export default async function init() { await sleep(30); }
export const version = () => '0.1.0';
export async function devices() {
  return JSON.stringify({ gpu: { name: 'SwiftShader Device (stub)', backend: 'browser-webgpu', kind: 'cpu', driver: '', limits: { max_binding: 1 << 30, max_buffer: 1 << 30, max_storage_buffers: 10, max_groups: 65535, max_invocations: 256 }, features: ['timestamps'] }, threads: 1 });
}
export class Incoming {
  constructor(device, batch, name, size) { Object.assign(this, { device, batch, name, size, got: 0 }); }
  async push(piece) {
    if (this.got === 0 && piece[7] !== 0) throw new Error(`${this.name} is not a packed model: the header's length is not plausible`);
    this.got += piece.length; await sleep(4);
  }
  async finish() { if (this.got !== this.size) throw new Error(`${this.name} is cut short: ${this.got} of ${this.size} bytes`); return new Scorer(this.device, this.size, 4); }
  free() {}
}
export class Scorer {
  constructor(device, size, bits) { Object.assign(this, { device, size, bits, rest: '', label: [], bad: 0 }); }
  static async full(weights, like, device) { await sleep(20); return new Scorer(device, weights.length, null); }
  describe() {
    return JSON.stringify({ engine: this.device === 'cpu' ? 'cpu' : 'gpu', device: 'SwiftShader Device (stub)', bits: this.bits ? { tables: 4, mlps: 4 } : null, bytes: this.size, device_bytes: this.size * 1.1, batch: 128, step: 12000, method: 'dqrm', tables: 9, rows: [4, 24, 12, 40], dim: 16, generator: false,
      columns: { separator: '\t', header: true, label: 'clicked', dense: ['hour'], categorical: ['device', 'site'], multi_hot: ['interests'], multi_hot_separator: ',' } });
  }
  begin(name) { this.name = name; this.rest = ''; }
  async push(text, last) {
    await sleep(2);
    const lines = (this.rest + new TextDecoder().decode(text)).split('\n'); this.rest = last ? '' : lines.pop();
    const rows = lines.filter(Boolean); this.label = rows.map((r) => (r[0] === '1' ? 1 : r[0] === '0' ? 0 : NaN));
    return Float32Array.from(rows.map((r) => this.score(r)));
  }
  score(row) {
    let z = -2.2; const cells = row.split('\t');
    cells.forEach((c, i) => { for (const part of c.split(',')) { z += 0.5 * hash(i + part); cells.forEach((d, j) => { if (j > i) z += 0.25 * hash(i + part + j + d); }); } });
    if (this.bits) z = z + 0.12 * hash(row);
    return 1 / (1 + Math.exp(-z));
  }
  labels() { return Float32Array.from(this.label); }
  skipped() { return JSON.stringify({ skipped: this.bad, messages: [] }); }
  async rank(rows) { await sleep(1); return Float32Array.from(rows.split('\n').filter(Boolean).map((r) => this.score(r))); }
  free() {}
}
export function summary(p, l) { return JSON.stringify({ samples: p.length, auc: 0.7731, log_loss: 0.4512, calibration: 1.012 }); }
export class Trainer {
  static async load(device, settings) { await sleep(80); const t = new Trainer(); t.s = { bits: 4, period: 200, learning_rate: 0.1, batch: 128, train: 20000, validation: 8000, ...JSON.parse(settings) }; t.n = 0; return t; }
  describe() { return JSON.stringify({ settings: this.s, engine: 'gpu', device: 'stub', steps_per_epoch: 156, best: { auc: 0.801, log_loss: 0.4 } }); }
  async steps(n) { await sleep(n * 0.5); const losses = []; for (let i = 0; i < n; i++) { this.n++; const e = this.n / 156; losses.push(0.42 + 0.25 * Math.exp(-e * 2) - (this.s.bits ? 0.008 : 0.035) * Math.min(e, 8) + 0.06 * (Math.random() - 0.5)); } return JSON.stringify({ step: this.n, epoch: this.n / 156, losses }); }
  async evaluate() { await sleep(30); const e = this.n / 156; const a = 0.5 + 0.27 * (1 - Math.exp(-e * 1.1)) - (this.s.bits ? 0.002 : 0.014) * Math.max(0, e - 2.5); return JSON.stringify({ auc: a + 0.002 * Math.random(), log_loss: 0.45, samples: 8000 }); }
  set_learning_rate() {}
  async pack() { const b = new Uint8Array(90000); return b; }
  free() {}
}
const text = `// y[b, o] = act(sum_i x[b, i] w[o, i] + bias[o])
@group(0) @binding(1) var<storage, read> x: array<f32>;         // [B, inputs]
@group(0) @binding(4) var<storage, read_write> y: array<f32>;   // [B, outputs]

fn relu(v: f32) -> f32 {
    return select(v, 0.0, v <= 0.0);
}

@compute @workgroup_size(8, 8)
fn matmul_nt(@builtin(global_invocation_id) id: vec3<u32>) {
    let o0 = id.x * 4u;
    y[o0] = relu(x[o0]);
}
`;
export function kernels() { return JSON.stringify(['matmul_nt', 'matmul_nn', 'gather_rows', 'interaction_forward', 'fake_quant', 'row_update', 'table_scale', 'loss_forward', 'dense_update', 'concat', 'pool', 'copy'].map((name) => ({ name, op: name.split('_')[0], formula: 'y[b, o] = act(sum_i x[b, i] w[o, i] + bias[o])', file: name.split('_')[0] + '.wgsl', source: text, workgroup: [8, 8, 1], bindings: [{ name: 'layer', access: 'uniform', type: 'MatmulParams' }, { name: 'x', access: 'read', type: 'array<f32>' }, { name: 'y', access: 'read_write', type: 'array<f32>' }], cases: 7 }))); }
export async function check(kernel, edited) {
  await sleep(300);
  const line = (edited ?? '').split('\n').findIndex((l) => l.includes('oops'));
  if (line >= 0) return JSON.stringify({ compiled: false, errors: [{ line: line + 1, column: 5, message: 'unresolved identifier `oops`' }], cases: [] });
  const bad = (edited ?? '').includes('* 3u');
  return JSON.stringify({ compiled: true, errors: [], cases: [1, 2, 3, 4, 5, 6, 7].map((n) => ({ name: `batch ${n}, inputs 13`, passed: !bad || n < 3, message: bad && n >= 3 ? 'y[4] is 0.25, the twin has 0.75 (tolerance 1e-5)' : 'largest difference 2.4e-7' })) });
}
export async function time(kernel, edited, seconds) { await sleep(seconds * 500); return JSON.stringify({ shape: 'batch 128, 512 x 256', original: { median_ms: 1.31, low_ms: 1.22, high_ms: 1.5 }, edited: edited ? { median_ms: 1.02, low_ms: 0.98, high_ms: 1.2 } : null, gbytes_per_s: 1.2, gflops: 25.6 }); }
