"""Makes the golden cases in `cases`: a DLRM with fake quantization, forward and backward, written
once more in float64 with numpy, so that settings the reference cases leave out have figures that do
not come from the crate. Seeds and sizes are such that float32 flips no code and no ReLU.

    python tests/golden/make.py tests/golden/cases
"""
import json
import os
import struct
import sys

import numpy as np

# For float32 in any summation order; as the reference cases, rounded up.
TOL = {"logits_init_abs": 2e-5, "probs_init_abs": 5e-6, "losses_abs": 5e-6, "logits_final_abs": 5e-5, "probs_final_abs": 1e-5,
       "final_weights_max_abs": 2e-5, "final_weights_mean_abs": 2e-7, "logits_packed_abs": 5e-5, "probs_packed_abs": 1e-5,
       "scales_rel": 5e-5, "codes_max_step": 1, "codes_mismatch_max": 4}


def save(path, arrays):
    header, blob = {}, b""
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        kind = {"float32": "F32", "int8": "I8", "int16": "I16", "int32": "I32"}[a.dtype.name]
        header[name] = {"dtype": kind, "shape": list(a.shape), "data_offsets": [len(blob), len(blob) + a.nbytes]}
        blob += a.tobytes()
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    open(path, "wb").write(struct.pack("<Q", len(text)) + text + blob)


class Quantizer:
    def __init__(self, bits):
        self.n = 2 ** (bits - 1) - 1 if bits else 0

    def scale(self, w, axis=None):
        return np.maximum(np.abs(w).max(axis=axis), 1e-8) / self.n

    def codes(self, w, s):
        return np.clip(np.rint(w * (1.0 / s)), -self.n - 1, self.n)


class Net:
    def __init__(self, c, w):
        self.c, self.w = c, {k: v.astype(np.float64) for k, v in w.items()}
        q = c["quantization"] or {}
        self.q, self.qe, self.ql = q, Quantizer(q.get("embedding_bits")), Quantizer(q.get("linear_bits"))
        self.table_scales, self.state = None, {}

    def layers(self, mlp):
        return [f"{mlp}.{2 * i}" for i in range(len(self.c["bottom"]) - 1 if mlp == "bot_l" else len(self.c["top"]))]

    def layer_scale(self, layer):
        w = self.w[layer + ".weight"]
        return self.ql.scale(w, 1) if self.q["linear_scale"] == "channel" else self.ql.scale(w).reshape(1)

    def linear(self, layer):
        w, b = self.w[layer + ".weight"], self.w[layer + ".bias"]
        if self.ql.n:
            s = self.layer_scale(layer)
            w = self.ql.codes(w, s[:, None]) * s[:, None]
            if self.q["quantize_bias"]:
                b = self.ql.codes(b, s) * s
        return w, b

    def fresh(self):
        self.table_scales = [self.qe.scale(self.w[f"emb_l.{k}.weight"]) for k in range(len(self.c["rows"]))]

    def mlp(self, name, x):
        kept = []
        layers = self.layers(name)
        for i, layer in enumerate(layers):
            w, b = self.linear(layer)
            y = x @ w.T + b
            relu = name == "bot_l" or i + 1 < len(layers)
            kept.append((layer, x, y, w, relu))
            x = np.maximum(y, 0) if relu else y
        return x, kept

    def back(self, kept, g, grads):
        for layer, x, y, w, relu in reversed(kept):
            if relu:
                g = g * (y > 0)
            grads[layer + ".weight"], grads[layer + ".bias"] = g.T @ x, g.sum(0)
            g = g @ w
        return g

    def forward(self, dense, bags):
        c, q = self.c, self.q
        x, self.bottom = self.mlp("bot_l", dense.astype(np.float64))
        vectors = [x]
        for k in range(len(c["rows"])):
            e = self.w[f"emb_l.{k}.weight"]
            if self.qe.n and not q["embedding_order"].startswith("pool"):
                e = self.qe.codes(e, self.table_scales[k]) * self.table_scales[k]
            v = np.stack([e[b[k]].sum(0) if len(b[k]) else np.zeros(c["dim"]) for b in bags])
            if self.qe.n and q["embedding_order"].startswith("pool"):
                v = self.qe.codes(v, self.table_scales[k]) * self.table_scales[k]
            vectors.append(v)
        self.T = T = np.stack(vectors, 1)
        if c["interaction"] == "cat":
            r = T.reshape(len(T), -1)
        else:
            Z = T @ T.transpose(0, 2, 1)
            off = 0 if c["interaction_itself"] else -1
            self.tri = np.tril_indices(T.shape[1], off)
            r = np.concatenate([x, Z[:, self.tri[0], self.tri[1]]], 1)
        out, self.top = self.mlp("top_l", r)
        return out[:, 0]

    def step(self, number, dense, bags, labels):
        c = self.c
        if self.qe.n and number % self.q["embedding_period"] == 0:
            self.fresh()
        z = self.forward(dense, bags)
        p, t, B = 1 / (1 + np.exp(-z)), labels.astype(np.float64), len(z)
        if c["loss"] == "mse":
            loss, g = ((p - t) ** 2).mean(), 2 * (p - t) / B * p * (1 - p)
        else:
            loss, g = (np.logaddexp(0, z) - t * z).mean(), (p - t) / B
        grads = {}
        dr = self.back(self.top, g[:, None], grads)
        if c["interaction"] == "cat":
            dT = dr.reshape(self.T.shape)
        else:
            dZ = np.zeros((B, self.T.shape[1], self.T.shape[1]))
            dZ[:, self.tri[0], self.tri[1]] = dr[:, c["dim"]:]
            dT = (dZ + dZ.transpose(0, 2, 1)) @ self.T
            dT[:, 0] += dr[:, :c["dim"]]
        self.back(self.bottom, dT[:, 0], grads)
        self.update(grads, dT, bags, number)
        return loss

    def update(self, grads, dT, bags, number):
        lr, o = self.c["lr"], self.c["optimizer"]
        for name, g in grads.items():
            if o in ("adagrad", "rwsadagrad"):
                s = self.state.setdefault(name, np.zeros_like(g))
                s += g * g
                g = g / (np.sqrt(s) + 1e-10)
            if o == "adam":
                m, v = self.state.setdefault(name, [np.zeros_like(g), np.zeros_like(g)])
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                g = m / (1 - 0.9 ** (number + 1)) / (np.sqrt(v / (1 - 0.999 ** (number + 1))) + 1e-8)
            self.w[name] -= lr * g
        for k in range(len(self.c["rows"])):
            name, rows = f"emb_l.{k}.weight", {}
            for b, bag in enumerate(bags):
                for r in bag[k]:
                    rows[r] = rows.get(r, 0) + dT[b, k + 1]
            for r, g in rows.items():
                if o == "adagrad":
                    s = self.state.setdefault(name, np.zeros_like(self.w[name]))
                    s[r] += g * g
                    g = g / (np.sqrt(s[r]) + 1e-10)
                if o == "rwsadagrad":
                    s = self.state.setdefault(name, np.zeros(len(self.w[name])))
                    s[r] += (g * g).mean()
                    g = g / (np.sqrt(s[r]) + 1e-10)
                self.w[name][r] -= lr * g


def make(out, c):
    base = {"interaction": "dot", "interaction_itself": False, "eval_rows": 32, "optimizer": "sgd", "lr": 0.1, "loss": "bce",
            "multi_hot": False, "empty_categorical": "zero_value", "quantization": None, "sampled_tensors": []}
    c = {**base, **c}
    rng, bag = np.random.default_rng(c["seed"]), c.pop("bag", 3)
    K, D = len(c["rows"]), c["dense"] if "dense" in c else c["bottom"][0]
    c["dense"], c["dim"] = D, c["bottom"][-1]
    pairs = (K + 1) * (K + 2) // 2 if c["interaction_itself"] else K * (K + 1) // 2
    c["top_input"] = (K + 1) * c["dim"] if c["interaction"] == "cat" else pairs + c["dim"]
    if c["quantization"]:
        c["quantization"] = {"embedding_bits": 4, "embedding_scale": "table", "embedding_period": 1, "embedding_order": "pool_then_quantize",
                             "linear_bits": 4, "linear_scale": "channel", "linear_period": 1, "quantize_bias": False, **c["quantization"]}
    c["tolerances"] = c["tolerances_loose"] = {**TOL, **c.pop("tol", {})}
    folder = os.path.join(out, c["name"])
    os.makedirs(folder, exist_ok=True)
    w = {f"emb_l.{k}.weight": rng.uniform(-1, 1, (r, c["dim"])) * max(r, 4) ** -0.5 for k, r in enumerate(c["rows"])}
    for mlp, widths in (("bot_l", c["bottom"]), ("top_l", [c["top_input"]] + c["top"])):
        for i, (n, m) in enumerate(zip(widths, widths[1:])):
            w[f"{mlp}.{2 * i}.weight"] = rng.normal(0, (2 / (m + n)) ** 0.5, (m, n))
            w[f"{mlp}.{2 * i}.bias"] = rng.normal(0, (1 / m) ** 0.5 * 0.5, m)
    w = {k: v.astype(np.float32) for k, v in w.items()}
    lines, dense, bags, labels = [], [], [], []
    for _ in range(c["train_rows"] + c["eval_rows"]):
        t = int(rng.random() < 0.4)
        ints = ["" if rng.random() < 0.1 else str(int(rng.exponential(20)) - 1) for _ in range(D)]
        cats, ids = [], []
        for r in c["rows"]:
            n = int(rng.integers(0, bag + 1)) if c["multi_hot"] else int(rng.random() > 0.1)
            values = [int(rng.integers(0, 2 ** 32)) for _ in range(n)]
            if n > 1 and rng.random() < 0.3:
                values[-1] = values[0]
            cats.append(",".join(f"{v:08x}" for v in values))
            ids.append([v % r for v in values] or ([] if c["empty_categorical"] == "empty_bag" else [0]))
        lines.append("\t".join([str(t)] + ints + cats))
        dense.append([np.log(np.float32(max(int(v or 0), 0)) + np.float32(1)) for v in ints])
        bags.append(ids)
        labels.append(t)
    open(os.path.join(folder, "data.tsv"), "w").write("\n".join(lines) + "\n")
    dense, labels = np.array(dense, np.float32).reshape(-1, D), np.array(labels, np.float32)
    json.dump(c, open(os.path.join(folder, "case.json"), "w"), indent=1)
    save(os.path.join(folder, "init.safetensors"), w)
    save(os.path.join(folder, "expected.safetensors"), expected(c, w, dense, bags, labels))


def expected(c, w, dense, bags, labels):
    net, n, e = Net(c, w), c["train_rows"], {}
    ev = slice(n, n + c["eval_rows"])

    def evaluate(net, when):
        e["logits_" + when] = z = net.forward(dense[ev], bags[ev])
        e["probs_" + when] = 1 / (1 + np.exp(-z))

    def scales(when):
        for layer in net.layers("bot_l") + net.layers("top_l") if net.ql.n else []:
            e[f"scale_lin.{when}.{layer}"] = net.layer_scale(layer)

    if net.qe.n:
        net.fresh()
        e["scale_emb.init"] = np.array(net.table_scales)
    scales("init")
    evaluate(net, "init")
    starts = list(range(0, n, c["batch"]))
    losses = []
    for i in range(c["steps"]):
        s = slice(starts[i % len(starts)], min(starts[i % len(starts)] + c["batch"], n))
        losses.append(net.step(i, dense[s], bags[s], labels[s]))
    e["losses"] = np.array(losses)
    if net.qe.n:
        e["scale_emb.last_used"] = np.array(net.table_scales)
    evaluate(net, "final")
    scales("final")
    for name, v in net.w.items():
        if name in c["sampled_tensors"]:
            rows = np.arange(0, len(v), 3, dtype=np.int32)
            e["final_rows_index." + name], e["final_rows." + name] = rows, v[rows]
            e["final_delta_l2." + name] = np.array([np.sqrt(((v - w[name].astype(np.float64)) ** 2).sum())])
        else:
            e["final." + name] = v.copy()
    if c["quantization"]:
        q, kinds = c["quantization"], {2: np.int8, 4: np.int8, 8: np.int8, 16: np.int16}
        plain = Net({**c, "quantization": None}, {k: v for k, v in net.w.items()})
        if net.qe.n:
            net.fresh()
            e["scale_emb.final"] = np.array(net.table_scales)
            for k, s in enumerate(net.table_scales):
                name = f"emb_l.{k}.weight"
                codes = net.qe.codes(net.w[name], s)
                e["codes." + name], plain.w[name] = codes.astype(kinds[q["embedding_bits"]]), codes * s
        for layer in net.layers("bot_l") + net.layers("top_l") if net.ql.n else []:
            s = net.layer_scale(layer)
            wq, bq = net.linear(layer)
            plain.w[layer + ".weight"], plain.w[layer + ".bias"] = wq, bq
            e[f"codes.{layer}.weight"] = np.rint(wq / s[:, None]).astype(kinds[q["linear_bits"]])
            if q["quantize_bias"]:
                e[f"codes.{layer}.bias"] = np.rint(bq / s).astype(kinds[q["linear_bits"]])
        evaluate(plain, "packed")
    return {k: v.astype(np.float32) if v.dtype == np.float64 else v for k, v in e.items()}


SMALL = {"bottom": [5, 11, 7], "rows": [50, 3, 20, 1], "top": [9, 5, 1], "batch": 17, "train_rows": 100, "steps": 6}
BAGS = {"multi_hot": True, "empty_categorical": "empty_bag"}
WIDE = {"top": [36, 16, 1], "batch": 70, "train_rows": 210}
ROWS_FIRST = {"embedding_order": "quantize_then_pool"}

CASES = [
    {**SMALL, **BAGS, "name": "rows_first_matrix_bias", "seed": 0,
     "quantization": {**ROWS_FIRST, "linear_scale": "matrix", "quantize_bias": True, "embedding_period": 3}},
    {**SMALL, "multi_hot": True, "name": "int2_pool_first", "seed": 1, "quantization": {"embedding_bits": 2, "linear_bits": 2}},
    {**SMALL, "name": "int16_cat_adagrad_mse", "seed": 2, "interaction": "cat", "optimizer": "adagrad", "loss": "mse", "lr": 0.01,
     "quantization": {"embedding_bits": 16, "linear_bits": 16, "quantize_bias": True},
     "tol": {"codes_mismatch_max": 100, "final_weights_max_abs": 5e-5}},  # INT16 steps are as small as float32 noise
    {**SMALL, "name": "mlp_only_diagonal_rwsadagrad", "seed": 3, "interaction_itself": True, "optimizer": "rwsadagrad", "lr": 0.01,
     "quantization": {"embedding_bits": None, "linear_scale": "matrix", "quantize_bias": True}},
    {**SMALL, "name": "tables_only_int8_two_passes", "seed": 4, "steps": 15, "sampled_tensors": ["top_l.0.weight"],
     "quantization": {"embedding_bits": 8, "linear_bits": None}, "tol": {"final_delta_l2_rel": 1e-4}},
    {**SMALL, "name": "adam", "seed": 5, "optimizer": "adam", "lr": 0.001},
    {"name": "smallest", "seed": 6, "bottom": [1, 1], "rows": [1], "top": [1], "batch": 1, "train_rows": 3, "steps": 3, "eval_rows": 1},
    {**SMALL, "name": "seventy_steps", "seed": 7, "steps": 70, "train_rows": 1200, "quantization": {"embedding_period": 7}},
    {**SMALL, **BAGS, "name": "multihot_rwsadagrad", "seed": 11, "bag": 6, "optimizer": "rwsadagrad", "lr": 0.02, "batch": 100, "steps": 5},
    {**SMALL, **BAGS, "name": "multihot_cat_adagrad", "seed": 12, "bag": 6, "interaction": "cat", "optimizer": "adagrad", "lr": 0.02,
     "batch": 33, "steps": 5, "quantization": {**ROWS_FIRST, "embedding_period": 2, "embedding_bits": 8}},
    # widths for the texts that take four values at once: outputs of all layers but the last, and inputs of some or of all
    {**SMALL, **WIDE, "name": "fours_dot_int4", "seed": 13, "bottom": [5, 12, 8], "quantization": {"linear_bits": 4}},
    {**SMALL, **WIDE, "name": "fours_cat", "seed": 14, "bottom": [8, 12, 8], "interaction": "cat"},
]

if __name__ == "__main__":
    for case in CASES:
        make(sys.argv[1], case)
