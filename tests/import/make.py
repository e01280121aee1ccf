"""Makes the PyTorch files of this folder, and what PyTorch predicts with them.

    pip install torch numpy safetensors
    python tests/import/make.py

The files were made with PyTorch 2.15.0, NumPy 2.4.6 and safetensors 0.8.0. Two models: `criteo`, with 13 dense
features and 26 tables, and `small`, with 5 and 4, saved in every way that DLRM checkpoints come in.
"""

import json
import math
import pathlib
from collections import OrderedDict

import numpy as np
import torch
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).parent


class DLRM(torch.nn.Module):
    """The parts of facebookresearch/dlrm's DLRM_Net that have weights, under its names."""

    def __init__(self, rows, bottom, top, join="dot"):
        super().__init__()
        dim, vectors = bottom[-1], len(rows) + 1
        pairs = {"dot": vectors * (vectors - 1) // 2, "diagonal": vectors * (vectors + 1) // 2}
        width = dim * vectors if join == "cat" else dim + pairs[join]
        self.rows, self.join = rows, join
        self.emb_l = torch.nn.ModuleList(torch.nn.EmbeddingBag(n, dim, mode="sum") for n in rows)
        self.bot_l = self.mlp(bottom, torch.nn.ReLU())
        self.top_l = self.mlp([width] + top, torch.nn.Sigmoid())

    @staticmethod
    def mlp(widths, last):
        layers = []
        for inputs, outputs in zip(widths, widths[1:]):
            layers += [torch.nn.Linear(inputs, outputs), torch.nn.ReLU()]
        return torch.nn.Sequential(*layers[:-1], last)

    def forward(self, dense, ids):
        x = self.bot_l(dense)
        ly = [table(ids[:, k : k + 1]) for k, table in enumerate(self.emb_l)]
        if self.join == "cat":
            return self.top_l(torch.cat([x] + ly, dim=1))[:, 0]
        t = torch.stack([x] + ly, dim=1)
        z = torch.bmm(t, t.transpose(1, 2))
        i, j = torch.tril_indices(t.shape[1], t.shape[1], 0 if self.join == "diagonal" else -1)
        return self.top_l(torch.cat([x, z[:, i, j]], dim=1))[:, 0]


def lines(dense, tables, count, rng):
    """Rows in Criteo's layout: label, integers (some empty, some negative), hex categories (some empty)."""
    for _ in range(count):
        ints = ["" if rng.random() < 0.2 else str(rng.integers(-3, 1000)) for _ in range(dense)]
        cats = ["" if rng.random() < 0.1 else f"{rng.integers(0, 2**32):08x}" for _ in range(tables)]
        yield "\t".join([str(rng.integers(0, 2))] + ints + cats)


def predict(model, text, dense):
    values, ids = [], []
    for line in text:
        fields = line.split("\t")
        values.append([math.log(max(int(x or 0), 0) + 1) for x in fields[1 : 1 + dense]])
        ids.append([int(x or "0", 16) % n for x, n in zip(fields[1 + dense :], model.rows)])
    with torch.no_grad():
        return model(torch.tensor(values, dtype=torch.float32), torch.tensor(ids)).double().tolist()


def rounded(model, dtype):
    """The probabilities of the weights rounded to a narrower type."""
    other = DLRM(model.rows, [5, 6, 3], [4, 1], model.join)
    other.load_state_dict({k: v.to(dtype).float() for k, v in model.state_dict().items()})
    return other


def make():
    torch.manual_seed(1)
    rng = np.random.default_rng(1)
    expected = {}
    rows = {"criteo": list(lines(13, 26, 20, rng)), "small": list(lines(5, 4, 20, rng))}
    for name, text in rows.items():
        (HERE / f"{name}.tsv").write_text("\n".join(text) + "\n")

    criteo = DLRM([3 + k % 7 for k in range(26)], [13, 6, 4], [5, 1])
    torch.save(criteo.state_dict(), HERE / "criteo.pt")
    expected["criteo.pt"] = predict(criteo, rows["criteo"], 13)

    small_rows = [7, 1, 12, 30]

    def keep(name, tensors, model, **how):
        torch.save(tensors, HERE / name, **how)
        expected[name] = predict(model, rows["small"], 5)

    small = DLRM(small_rows, [5, 6, 3], [4, 1])
    state = small.state_dict()
    keep("small.pt", state, small)
    keep("protocol4.pt", state, small, pickle_protocol=4)
    keep("parameters.pt", small.state_dict(keep_vars=True), small)
    keep("module.pt", OrderedDict((f"module.{k}", v) for k, v in state.items()), small)
    for join in ["diagonal", "cat"]:
        model = DLRM(small_rows, [5, 6, 3], [4, 1], join)
        keep(f"{join}.pt", model.state_dict(), model)

    # What dlrm_s_pytorch.py saves, after two steps of Adagrad; its figures are NumPy scalars.
    trained = DLRM(small_rows, [5, 6, 3], [4, 1])
    optimizer = torch.optim.Adagrad(trained.parameters(), lr=0.1)
    total = np.float32(0)
    for _ in range(2):
        optimizer.zero_grad()
        loss = trained(torch.rand(8, 5), torch.zeros(8, 4, dtype=torch.long)).mean()
        loss.backward()
        optimizer.step()
        total += loss.detach().numpy() * 8
    checkpoint = {
        "nepochs": 1,
        "nbatches": 2,
        "nbatches_test": 1,
        "state_dict": trained.state_dict(),
        "test_acc": np.float64(0.75),
        "epoch": 0,
        "iter": 2,
        "train_loss": total / np.uint64(16),
        "total_loss": total,
        "opt_state_dict": optimizer.state_dict(),
    }
    keep("checkpoint.pt", checkpoint, trained)

    # The names of the published DQRM code, with the tensors that its quantizers keep.
    quantized = OrderedDict()
    for k, v in state.items():
        part, number, kind = k.split(".")
        quantized[f"emb_l.{number}.embedding_bag.weight" if part == "emb_l" else k] = v
        if part == "emb_l":
            for extra in ["eb_scaling_factor", "emb_scaling_factor"]:
                quantized[f"emb_l.{number}.{extra}"] = torch.rand(1)
            for extra in ["gradient_bit_width", "now_iteration", "iteration_bound", "iteration_nt"]:
                quantized[f"emb_l.{number}.{extra}"] = torch.tensor([3])
        elif kind == "bias":
            for extra in ["fc_scaling_factor", "correct_output_scale", "weight_scaling_factor", "bias_scaling_factor"]:
                quantized[f"{part}.{number}.{extra}"] = torch.rand(v.shape[0])
    keep("dqrm.pt", {"model_state_dict": quantized, "epoch": 1}, small)

    for dtype, name in [(torch.float16, "half"), (torch.bfloat16, "bfloat16"), (torch.float64, "double")]:
        keep(f"{name}.pt", {k: v.to(dtype) for k, v in state.items()}, rounded(small, dtype))
    keep("transposed.pt", {k: v.t().contiguous().t() if v.ndim == 2 else v for k, v in state.items()}, small)

    # One storage for all: every tensor is a piece of it, behind some values that belong to none.
    flat = torch.cat([torch.full([5], 9.0)] + [v.flatten() for v in state.values()])
    pieces, at = OrderedDict(), 5
    for k, v in state.items():
        pieces[k] = flat[at : at + v.numel()].view(v.shape)
        at += v.numel()
    keep("shared.pt", pieces, small)

    torch.serialization.set_crc32_options(False)
    keep("unchecked.pt", state, small)
    torch.serialization.set_crc32_options(True)
    torch.save(state, HERE / "legacy.pt", _use_new_zipfile_serialization=False)

    for name, dtype in [("small", torch.float32), ("half", torch.float16), ("bfloat16", torch.bfloat16), ("double", torch.float64)]:
        save_file({k: v.to(dtype).contiguous() for k, v in state.items()}, HERE / f"{name}.safetensors")
        expected[f"{name}.safetensors"] = predict(rounded(small, dtype), rows["small"], 5)

    (HERE / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


make()
