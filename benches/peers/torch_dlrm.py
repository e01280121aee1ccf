#!/usr/bin/env python3
"""DLRM in PyTorch, timed as the other programs here are (see README.md).

    python3 torch_dlrm.py FILE [--mode eager|compile|fused|graph] [--bits none|4] [--device cpu|cuda] [--threads N]
    python3 torch_dlrm.py FILE --profile 50      # where the time goes, operator by operator

FILE holds the first weights and the batches (`cargo bench --bench peers -- --write FILE`). Standard input has one number
a line, the seconds of a round; each is answered with one line of JSON.

Modes:
  eager    nn.EmbeddingBag with sparse gradients, operator by operator
  compile  the same with everything behind the lookups in torch.compile (sparse gradients stay outside of it)
  fused    all tables in one tensor, rows gathered and updated with one index operation each
  graph    `fused` captured as a CUDA graph
"""

import argparse
import json
import math
import os
import sys
import time

import torch
import torch.nn.functional as F
from torch import nn


def read(path):
    """Notes and tensors of a safetensors file."""
    with open(path, "rb") as file:
        data = bytearray(file.read())
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    types = {"F32": torch.float32, "I32": torch.int32}
    tensors = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        count, start = math.prod(entry["shape"]), 8 + length + entry["data_offsets"][0]
        tensors[name] = torch.frombuffer(data, dtype=types[entry["dtype"]], count=count, offset=start).view(entry["shape"])
    return header["__metadata__"], tensors


class FakeQuant(torch.autograd.Function):
    """INT4 codes times their scale, one scale for each index of `axis`; the gradient passes unchanged. Zero points are
    floats on CUDA, because integer ones are checked on every call, which waits for the device."""

    @staticmethod
    def forward(ctx, values, scales, zeros, axis):
        return torch.fake_quantize_per_channel_affine(values, scales, zeros, axis, -8, 7)

    @staticmethod
    def backward(ctx, gradient):
        return gradient, None, None, None


class Linear(nn.Linear):
    """A layer whose weights and bias are quantized on one fresh scale for each output row."""

    def __init__(self, inputs, outputs, quantize):
        super().__init__(inputs, outputs)
        self.quantize = quantize
        self.register_buffer("zeros", torch.zeros(outputs, dtype=torch.int32), persistent=False)

    def forward(self, x):
        if not self.quantize:
            return super().forward(x)
        scales = self.weight.detach().abs().amax(1).clamp(min=1e-8) / 7
        weight = FakeQuant.apply(self.weight, scales, self.zeros, 0)
        return F.linear(x, weight, FakeQuant.apply(self.bias, scales, self.zeros, 0))


def mlp(widths, last_relu, quantize):
    layers = []
    for i, (inputs, outputs) in enumerate(zip(widths, widths[1:])):
        layers.append(Linear(inputs, outputs, quantize))
        if last_relu or i + 2 < len(widths):
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)


class Dlrm(nn.Module):
    """Bottom MLP, one row of each table, products of all pairs, top MLP. All shapes come from the weights."""

    def __init__(self, weights, tables, quantize, period):
        super().__init__()
        widths = lambda part: [weights[f"{part}_l.0.weight"].shape[1]] + [
            t.shape[0] for name, t in sorted(weights.items()) if name.startswith(part) and name.endswith("weight")
        ]
        self.emb_l = nn.ModuleList(
            nn.EmbeddingBag(*weights[f"emb_l.{k}.weight"].shape, mode="sum", sparse=True) for k in range(tables)
        )
        self.bot_l = mlp(widths("bot"), True, quantize)
        self.top_l = mlp(widths("top"), False, quantize)
        self.quantize, self.period = quantize, period
        pairs = torch.tril_indices(tables + 1, tables + 1, offset=-1)
        self.register_buffer("pairs", pairs[0] * (tables + 1) + pairs[1], persistent=False)
        self.register_buffer("scales", torch.zeros(tables), persistent=False)
        self.register_buffer("zeros", torch.zeros(tables, dtype=torch.int32), persistent=False)
        self.load_state_dict(weights)

    @torch.no_grad()
    def refresh(self, step, tables):
        """Scales of the tables, every `period` steps."""
        if self.quantize and step % self.period == 0:
            largest = [torch.linalg.vector_norm(table, math.inf) for table in tables]
            self.scales.copy_(torch.stack(largest).clamp(min=1e-8) / 7)

    def loss(self, pooled, dense, labels):
        """The mean loss of a batch; `pooled` is `[B, K, D]`. With one row a bag, quantizing rows and quantizing sums
        of rows are the same."""
        if self.quantize:
            pooled = FakeQuant.apply(pooled, self.scales, self.zeros, 1)
        x = self.bot_l(dense)
        vectors = torch.cat([x.unsqueeze(1), pooled], 1)
        products = torch.bmm(vectors, vectors.transpose(1, 2)).flatten(1)
        logits = self.top_l(torch.cat([x, products.index_select(1, self.pairs)], 1))
        return F.binary_cross_entropy_with_logits(logits.squeeze(1), labels)


class Bags:
    """Training with nn.EmbeddingBag: sparse gradients, two SGD optimizers."""

    def __init__(self, model, batches, lr, compiled):
        self.model, self.batches, self.number = model, batches, 0
        self.loss = torch.compile(model.loss) if compiled else model.loss
        tables = [table.weight for table in model.emb_l]
        layers = [p for name, p in model.named_parameters() if not name.startswith("emb_l")]
        self.tables = tables
        self.optimizers = [torch.optim.SGD(layers, lr=lr, fused=True), torch.optim.SGD(tables, lr=lr)]
        self.device = tables[0].device
        self.offsets = torch.arange(batches[0][0].shape[0], device=self.device)

    def step(self):
        dense, labels, ids = (t.to(self.device, non_blocking=True) for t in self.batches[self.number % len(self.batches)])
        self.model.refresh(self.number, self.tables)
        for optimizer in self.optimizers:
            optimizer.zero_grad()
        pooled = torch.stack([table(ids[k], self.offsets) for k, table in enumerate(self.model.emb_l)], 1)
        loss = self.loss(pooled, dense, labels)
        loss.backward()
        for optimizer in self.optimizers:
            optimizer.step()
        self.number += 1
        return loss.detach()


class Fused:
    """Training with all tables in one tensor; as a CUDA graph, or operator by operator."""

    def __init__(self, model, batches, lr, graph):
        self.model, self.batches, self.number, self.lr = model, batches, 0, lr
        parts = [table.weight.detach() for table in model.emb_l]
        first = torch.tensor([0] + [p.shape[0] for p in parts]).cumsum(0)
        self.device, self.dim = parts[0].device, parts[0].shape[1]
        self.rows = torch.cat(parts)
        self.tables = [self.rows[first[k] : first[k + 1]] for k in range(len(parts))]
        model.emb_l = nn.ModuleList()
        self.first = first[:-1].to(self.device)
        self.optimizer = torch.optim.SGD(model.parameters(), lr=lr, fused=True)
        self.inputs = [t.to(self.device, copy=True) for t in batches[0]]
        self.wanted, self.graph, self.result = graph, None, None

    def compute(self):
        dense, labels, ids = self.inputs
        flat = (ids.t() + self.first).flatten()
        pooled = self.rows.index_select(0, flat).view(len(labels), -1, self.dim).requires_grad_()
        self.optimizer.zero_grad()
        loss = self.model.loss(pooled, dense, labels)
        loss.backward()
        self.optimizer.step()
        self.rows.index_add_(0, flat, pooled.grad.view(-1, self.dim), alpha=-self.lr)
        return loss.detach()

    def capture(self):
        """Records a step; the steps that capturing needs beforehand are taken back."""
        kept = [t.clone() for t in [self.rows, *self.model.parameters()]]
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.compute()
        torch.cuda.current_stream().wait_stream(side)
        self.graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self.graph):
            self.result = self.compute()
        with torch.no_grad():
            for tensor, before in zip([self.rows, *self.model.parameters()], kept):
                tensor.copy_(before)

    def step(self):
        self.model.refresh(self.number, self.tables)
        if self.wanted and self.graph is None:
            self.capture()
        for static, tensor in zip(self.inputs, self.batches[self.number % len(self.batches)]):
            static.copy_(tensor, non_blocking=True)
        self.number += 1
        if self.graph is None:
            return self.compute()
        self.graph.replay()
        return self.result.clone()


def wait(device):
    if device == "cuda":
        torch.cuda.synchronize()


def timed(trainer, seconds, device):
    """Steps for at least `seconds`. The last loss is read before the clock is."""
    start, steps, size = time.perf_counter(), 0, trainer.batches[0][0].shape[0]
    while True:
        for _ in range(32):
            loss = trainer.step()
            steps += 1
            if time.perf_counter() - start > seconds:
                break
        wait(device)
        elapsed = time.perf_counter() - start
        if elapsed >= seconds:
            value = loss.item()
            assert math.isfinite(value), "the loss is no number"
            return {"samples_per_second": steps * size / elapsed, "steps": steps, "loss": value}


def profiled(trainer, steps, device):
    from torch.profiler import ProfilerActivity, profile

    kinds = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with profile(activities=kinds) as found:
        for _ in range(steps):
            trainer.step()
        wait(device)
    order = "self_cuda_time_total" if device == "cuda" else "self_cpu_time_total"
    print(found.key_averages().table(sort_by=order, row_limit=24, max_name_column_width=50))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file")
    parser.add_argument("--mode", choices=["eager", "compile", "fused", "graph"], default="eager")
    parser.add_argument("--bits", choices=["none", "4"], default="none")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--profile", type=int, metavar="STEPS")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)

    notes, tensors = read(args.file)
    dense, labels, ids = (tensors.pop(name) for name in ["dense", "labels", "ids"])
    ids = ids.long().transpose(1, 2).contiguous()  # [N, K, B]
    batches = list(zip(dense, labels, ids))
    if args.device == "cuda":
        batches = [tuple(t.pin_memory() for t in batch) for batch in batches]
    model = Dlrm(tensors, int(notes["tables"]), args.bits == "4", int(notes["period"])).to(args.device)
    if args.device == "cuda":
        for module in model.modules():
            if hasattr(module, "zeros"):
                module.zeros = module.zeros.float()
    lr = float(notes["lr"])
    if args.mode in ("eager", "compile"):
        trainer = Bags(model, batches, lr, args.mode == "compile")
    else:
        trainer = Fused(model, batches, lr, args.mode == "graph")

    losses = [trainer.step().item() for _ in range(int(notes["first"]))]
    timed(trainer, 1.0, args.device)
    if args.profile:
        profiled(trainer, args.profile, args.device)
        return
    touched = sum(len(table.unique()) for batch in ids for table in batch) / len(ids)
    device = torch.cuda.get_device_name() if args.device == "cuda" else f"{torch.get_num_threads()} threads"
    ready = {"version": f"torch {torch.__version__}", "device": device, "touched": touched, "losses": losses}
    print(json.dumps(ready), flush=True)
    for line in sys.stdin:
        print(json.dumps(timed(trainer, float(line), args.device)), flush=True)


if __name__ == "__main__":
    main()
