#!/usr/bin/env python3
"""Trains the same model on the same batches in dqrm and in what else one might pick, round by round in turn, and prints
samples a second and their ratios as a Markdown table.

    benches/peers/run.py                                        # CPU: PyTorch eager, compiled, with hand-written updates
    benches/peers/run.py --batch 128 --rounds 3 --peers torch
    benches/peers/run.py --device llvmpipe --peers burn         # an adapter, by part of its name

A peer that is not installed is named and left out. See README.md for what each one needs.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
BITS = {"none": "FP32", "4": "INT4"}
TORCH = {"torch": "eager", "torch-compile": "compile", "torch-fused": "fused", "torch-graph": "graph"}
PEERS = [*TORCH, "burn", "burn-joined", "dqrm-prepare"]


class Missing(Exception):
    """Why a program cannot be part of the comparison."""


class Program:
    """A process that trains for as long as a line on its standard input says."""

    def __init__(self, name, bits, command, env, logs):
        self.name, self.bits, self.rates, self.difference = name, bits, [], None
        self.log = logs / f"{name}-{bits}.log"
        with open(self.log, "w") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, env=env)
        try:
            self.ready = self.answer()
        except Missing:
            self.stop()
            raise

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        last = self.log.read_text().strip().splitlines()[-3:]
        raise Missing(f"ended: {' / '.join(last) or 'without a word'}")

    def round(self, seconds):
        self.process.stdin.write(f"{seconds}\n")
        self.process.stdin.flush()
        return self.answer()["samples_per_second"]

    def stop(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.process.stdout.close()


def say(text):
    print(text, file=sys.stderr, flush=True)


def output(command, **more):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, **more).stdout


def cargo(words, name, folder, env):
    """Builds, and gives the path of the program of that name."""
    lines = output(["cargo", *words, "--message-format", "json-render-diagnostics"], cwd=folder, env=env).splitlines()
    found = [m["executable"] for m in map(json.loads, lines) if m.get("executable") and m["target"]["name"] == name]
    if not found:
        raise Missing(f"`cargo {' '.join(words)}` built no `{name}`")
    return found[-1]


class Plan:
    """Which programs run, and how."""

    def __init__(self, args, logs):
        self.args, self.logs = args, logs
        threads = str(args.threads)
        names = ["RAYON_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS", "LP_NUM_THREADS"]
        self.env = {**os.environ, **{name: threads for name in names}}
        say("building dqrm")
        self.ours = cargo(["bench", "--bench", "peers", "--no-run"], "peers", ROOT, os.environ)
        self.left_out = {}
        self.cuda = None
        self.burn = None
        if any(p in TORCH for p in args.peers):
            self.look_for_torch()
        if any(p.startswith("burn") for p in args.peers):
            self.look_for_burn()

    def leave_out(self, name, why):
        say(f"without {name}: {why}")
        self.left_out[name] = why

    def look_for_torch(self):
        code = "import torch; print(torch.cuda.is_available())"
        try:
            self.cuda = output([self.args.python, "-c", code], stderr=subprocess.DEVNULL).strip() == "True"
        except (OSError, subprocess.CalledProcessError):
            why = f"`{self.args.python}` cannot import torch; in a virtual environment: pip install torch, then --python ENV/bin/python"
            for name in filter(TORCH.get, self.args.peers):
                self.leave_out(name, why)
            return
        if self.args.device != "cpu" and not self.cuda:
            for name in filter(TORCH.get, self.args.peers):
                self.leave_out(name, "PyTorch finds no CUDA device")
        elif self.args.device == "cpu" and "torch-graph" in self.args.peers:
            self.leave_out("torch-graph", "CUDA graphs need --device with a GPU")

    def look_for_burn(self):
        names = [p for p in self.args.peers if p.startswith("burn")]
        if self.args.device == "cpu":
            for name in names:
                self.leave_out(name, "it runs on adapters; use --device NAME")
            return
        if self.args.burn:
            self.burn = self.args.burn
            return
        say("building Burn (the first time takes long)")
        try:
            self.burn = cargo(["build", "--release", "--target-dir", "target"], "dlrm-burn", HERE / "burn", os.environ)
        except (OSError, subprocess.CalledProcessError, Missing) as error:
            for name in names:
                self.leave_out(name, str(error))

    def command(self, name, bits, batch, file):
        args = self.args
        if name.startswith("dqrm"):
            words = ["--device", args.device, "--bits", bits, "--batch", str(batch), "--rows", str(args.rows)]
            return [self.ours, *words, *(["--prepare"] if name == "dqrm-prepare" else [])]
        if name in TORCH:
            device = "cpu" if args.device == "cpu" else "cuda"
            script = [args.python, str(HERE / "torch_dlrm.py"), str(file)]
            return [*script, "--mode", TORCH[name], "--bits", bits, "--device", device, "--threads", str(args.threads)]
        name_of = [] if args.device == "gpu" else ["--device", args.device]
        return [self.burn, str(file), *name_of, *(["--joined"] if name == "burn-joined" else [])]

    def start(self, batch, file, programs):
        """Adds the programs, ours first, each ready; those that fail are left out."""
        for name in ["dqrm", *(p for p in self.args.peers if p not in self.left_out)]:
            for bits in BITS if not name.startswith("burn") else ["none"]:
                say(f"batch {batch}: {name} {BITS[bits]} gets ready")
                try:
                    programs.append(Program(name, bits, self.command(name, bits, batch, file), self.env, self.logs))
                except (OSError, Missing) as error:
                    if name == "dqrm":
                        raise
                    self.leave_out(f"{name} {BITS[bits]}", str(error))


def compare_losses(programs):
    """Each program's largest difference to ours in the losses of the first steps, and in touched rows."""
    ours = {p.bits: p.ready for p in programs if p.name == "dqrm"}
    for p in programs:
        reference = ours[p.bits]
        if abs(p.ready["touched"] - reference["touched"]) > 1e-6:
            raise SystemExit(f"error: {p.name} touches {p.ready['touched']} rows a batch and dqrm {reference['touched']}")
        p.difference = max(abs(a - b) for a, b in zip(p.ready["losses"], reference["losses"], strict=True))
        if p.bits == "none" and p.difference > 1e-3:
            raise SystemExit(f"error: the losses of {p.name} are {p.ready['losses']} and those of dqrm {reference['losses']}")


def spread(values, digits):
    low, mid, high = (f"{v:,.{digits}f}" for v in (min(values), median(values), max(values)))
    return f"{mid} ({low} to {high})"


def table(batch, programs, args):
    ours = {p.bits: p.rates for p in programs if p.name == "dqrm"}
    touched = programs[0].ready["touched"]
    lines = [
        f"Batch {batch}, {touched:,.0f} different rows a batch, {args.rounds} rounds of {args.seconds:g} s in turn.",
        "",
        "| program | | samples/s | dqrm FP32 ÷ it | dqrm INT4 ÷ it | first losses differ by |",
        "|---|---|---|---|---|---|",
    ]
    for p in programs:
        ratios = ["" if p.name == "dqrm" and p.bits == b else spread([a / t for a, t in zip(ours[b], p.rates)], 2) for b in BITS]
        difference = "" if p.name == "dqrm" else f"{p.difference:.1e}"
        lines.append(f"| {p.name} | {BITS[p.bits]} | {spread(p.rates, 0)} | {ratios[0]} | {ratios[1]} | {difference} |")
    return "\n".join(lines)


def measure(plan, batch, folder):
    args = plan.args
    file = folder / f"{batch}.safetensors"
    subprocess.run([plan.ours, "--write", str(file), "--batch", str(batch), "--rows", str(args.rows)], check=True)
    programs = []
    try:
        plan.start(batch, file, programs)
        compare_losses(programs)
        for number in range(args.rounds + 1):
            say(f"batch {batch}: " + (f"round {number} of {args.rounds}" if number else "a round to warm up"))
            for p in list(programs):
                try:
                    rate = p.round(args.seconds)
                except (OSError, Missing) as error:
                    if p.name == "dqrm":
                        raise
                    plan.leave_out(f"{p.name} {BITS[p.bits]}", str(error))
                    programs.remove(p)
                    continue
                if number:
                    p.rates.append(rate)
        for p in programs:
            if args.json:
                print(json.dumps({"batch": batch, "program": p.name, "bits": BITS[p.bits], **p.ready, "samples_per_second": p.rates}))
        if not args.json:
            print(f"\n{table(batch, programs, args)}", flush=True)
        return {f"{p.ready['version']} on {p.ready['device']}" for p in programs}
    finally:
        for p in programs:
            p.stop()
        file.unlink()


def processor():
    try:
        models = [line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name")]
        return models[0]
    except (OSError, IndexError):
        return platform.processor() or platform.machine()


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", default="128,2048", help="batch sizes, separated by commas")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a round")
    parser.add_argument("--peers", help=f"separated by commas, of {', '.join(PEERS)}")
    parser.add_argument("--device", default="cpu", help="cpu, gpu, or part of an adapter's name")
    parser.add_argument("--rows", type=int, default=100_000, help="rows of each of the 26 tables")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count())
    parser.add_argument("--python", default=sys.executable, help="a Python that can import torch")
    parser.add_argument("--burn", help="the Burn program, if it is built already")
    parser.add_argument("--json", action="store_true", help="lines of JSON instead of tables")
    args = parser.parse_args()
    usual = "torch,torch-compile,torch-fused" if args.device == "cpu" else "torch,torch-compile,torch-graph,burn"
    args.peers = (args.peers or usual).split(",")
    for name in args.peers:
        if name not in PEERS:
            parser.error(f"`{name}` is no peer; use {', '.join(PEERS)}")
    try:
        args.batch = [int(size) for size in args.batch.split(",")]
    except ValueError:
        parser.error(f"cannot use `{args.batch}` for --batch")
    if args.rounds < 1 or min(args.batch) < 1:
        parser.error("--rounds and --batch must be at least 1")
    return args


def main():
    args = arguments()
    with tempfile.TemporaryDirectory() as folder:
        plan = Plan(args, Path(folder))
        versions = set()
        for batch in args.batch:
            versions |= measure(plan, batch, Path(folder))
    if not args.json:
        print(f"\n{'; '.join(sorted(versions))}; {output(['rustc', '--version']).strip()}; {processor()}, {args.threads} threads.")
        for name, why in plan.left_out.items():
            print(f"Without {name}: {why}.")


if __name__ == "__main__":
    try:
        main()
    except (OSError, Missing, subprocess.CalledProcessError) as failure:
        sys.exit(f"error: {failure}")
