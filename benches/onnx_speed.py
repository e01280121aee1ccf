"""Rows per second of onnxruntime (CPU) on an exported model, one JSON line for each batch size.

    python3 benches/onnx_speed.py model.onnx --batch 1 128 2048 --threads 2

Ids are drawn from the whole of each table, evenly or after Zipf's law; bags have --bag ids.
Needs onnxruntime and numpy (tests/onnx/requirements.txt).
"""

import argparse
import json
import statistics
import time

import numpy as np
import onnxruntime


def draw(random, rows, size, zipf):
    """Valid row numbers."""
    if zipf == 0:
        return random.integers(0, rows, size)
    # the inverse of a power law's distribution function, scattered over the table
    u = random.random(size)
    rank = np.exp(u * np.log(rows)) if zipf == 1 else (1 + u * (rows ** (1 - zipf) - 1)) ** (1 / (1 - zipf))
    return (rank.astype(np.int64) * 2654435761) % rows


def feed(model, random, batch, bag, zipf):
    manifest = json.loads(model.get_modelmeta().custom_metadata_map["dqrm.manifest"])
    rows, values = manifest["shape"]["rows"], {}
    for given in model.get_inputs():
        if given.name == "dense":
            values["dense"] = random.integers(0, 100, (batch, given.shape[1])).astype(np.float32)
        elif given.name == "ids":
            values["ids"] = np.stack([draw(random, r, batch, zipf) for r in rows[: given.shape[1]]], axis=1)
        else:
            values[given.name] = draw(random, rows[int(given.name[4:])], (batch, bag), zipf)
    return values


def measure(model, batches, seconds):
    """Rows per second while running over `batches` for about that long."""
    rows, began = 0, time.perf_counter()
    while True:
        for batch in batches:
            model.run(["probability"], batch)
            rows += len(batch["dense"])
        spent = time.perf_counter() - began
        if spent >= seconds:
            return rows / spent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--batch", type=int, nargs="+", default=[1, 128, 2048])
    parser.add_argument("--threads", type=int, default=0, help="intra_op_num_threads; 0 lets onnxruntime choose")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each round")
    parser.add_argument("--bag", type=int, default=4, help="ids in each bag of a multi-hot table")
    parser.add_argument("--zipf", type=float, default=0.0, help="exponent; 0 draws evenly")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = args.threads
    began = time.perf_counter()
    model = onnxruntime.InferenceSession(args.model, options, providers=["CPUExecutionProvider"])
    loaded = time.perf_counter() - began
    random = np.random.default_rng(args.seed)
    for batch in args.batch:
        batches = [feed(model, random, batch, args.bag, args.zipf) for _ in range(max(4, min(64, 16384 // batch)))]
        measure(model, batches, 0.2)
        found = sorted(measure(model, batches, args.seconds) for _ in range(args.rounds))
        result = {"model": args.model, "batch": batch, "threads": args.threads, "rounds": args.rounds, "zipf": args.zipf}
        result |= {"rows_per_second": round(statistics.median(found)), "min": round(found[0]), "max": round(found[-1])}
        result |= {"load_seconds": round(loaded, 3), "onnxruntime": onnxruntime.__version__}
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
