"""Compares exported ONNX models with the probabilities that dqrm gave for the same samples.

    cargo run --release --example 04_onnx -- FOLDER
    python3 tests/onnx/check.py FOLDER

Each folder in FOLDER holds model.onnx, one NAME.npy for each of its inputs, probability.npy, and for a
quantized model packed.safetensors. Needs the packages in requirements.txt.
"""

import json
import pathlib
import sys

import numpy as np
import onnx
import onnxruntime

SMALL = 400_000  # bytes; in a smaller file nodes and notes may be more than 2 %
NODES = 1024  # bytes of nodes and notes that each table may cost there
TOLERANCE = 1e-5  # of probabilities; sums are taken in another order
ALLOWED = set(
    "Add BitShift BitwiseAnd BitwiseXor Cast Concat DequantizeLinear Gather Gemm GreaterOrEqual Less Log MatMul Max Mul "
    "ReduceSum Relu Reshape Sigmoid Slice Split Squeeze Transpose Unsqueeze Where".split()
)


def session(path):
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 2
    options.log_severity_level = 2
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def inputs(folder, model):
    return {i.name: np.load(folder / f"{i.name}.npy") for i in model.get_inputs()}


def check_form(path):
    """The model is valid ONNX of opset 18 with standard operators only."""
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path), load_external_data=False)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)], model.opset_import
    assert all(n.domain == "" and n.op_type in ALLOWED for n in model.graph.node)
    notes = {p.key: p.value for p in model.metadata_props}
    assert json.loads(notes["dqrm.manifest"])["shape"] and json.loads(notes["dqrm.ids"])["kind"] and notes["dqrm.inputs"]
    return model


def tables(model):
    return len(json.loads(model.get_modelmeta().custom_metadata_map["dqrm.manifest"])["shape"]["rows"])


def packed_size(path):
    """Bytes of a packed file without its id mapping."""
    with path.open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    start, end = header["dqrm.ids"]["data_offsets"]
    return path.stat().st_size - (end - start)


def check_numbers(folder, model):
    """Largest difference, over batches of several sizes."""
    given, expected = inputs(folder, model), np.load(folder / "probability.npy")
    assert len(expected) >= 1000, len(expected)
    probability, logit = model.run(["probability", "logit"], given)
    assert np.allclose(1 / (1 + np.exp(-logit.astype(np.float64))), probability, atol=1e-6)
    largest = np.abs(probability - expected).max()
    for start, count in ((0, 1), (1, 7), (8, 128)):
        part = model.run(["probability"], {k: v[start : start + count] for k, v in given.items()})[0]
        largest = max(largest, np.abs(part - expected[start : start + count]).max())
    assert expected.std() > 0.01, "the model says the same for every sample"
    return largest


def check_bad_ids(folder, model):
    """Ids outside their table are errors; a bag may be empty, and padding changes nothing."""
    given = {k: v[:4].copy() for k, v in inputs(folder, model).items()}
    silent = onnxruntime.RunOptions()
    silent.log_severity_level = 4
    rows = json.loads(model.get_modelmeta().custom_metadata_map["dqrm.manifest"])["shape"]["rows"]
    if "ids" in given:
        wrong = [(k, bad) for k in (0, len(rows) - 1) for bad in (rows[k], -1, 2**40)]
        for k, bad in wrong:
            ids = given["ids"].copy()
            ids[2, k] = bad
            try:
                model.run(None, {**given, "ids": ids}, silent)
            except onnxruntime.capi.onnxruntime_pybind11_state.InvalidArgument as error:
                assert "indices element out of data bounds" in str(error), error
            else:
                raise AssertionError(f"id {bad} in table {k} of {rows[k]} rows was taken")
        return
    before = model.run(["logit"], given)[0]
    wider = {k: np.pad(v, ((0, 0), (1, 2)), constant_values=-1) if k.startswith("ids_") else v for k, v in given.items()}
    assert np.allclose(before, model.run(["logit"], wider)[0], atol=1e-6)
    without = {k: v[:, :0] if k.startswith("ids_") else v for k, v in given.items()}
    empty = {k: np.full_like(v[:, :1], -1) if k.startswith("ids_") else v for k, v in given.items()}
    assert np.allclose(model.run(["logit"], without)[0], model.run(["logit"], empty)[0], atol=1e-6)


def main():
    folders = sorted(p.parent for p in pathlib.Path(sys.argv[1]).glob("*/model.onnx"))
    assert folders, f"no model.onnx in the folders of {sys.argv[1]}"
    failed = False
    print(f"onnxruntime {onnxruntime.__version__}, onnx {onnx.__version__}")
    for folder in folders:
        path = folder / "model.onnx"
        check_form(path)
        model = session(path)
        largest = check_numbers(folder, model)
        check_bad_ids(folder, model)
        line, packed = "", folder / "packed.safetensors"
        good = largest <= TOLERANCE
        if packed.exists():
            size, wanted = path.stat().st_size, packed_size(packed)
            line = f", {size} bytes, {100 * (size / wanted - 1):+.2f} % against the packed file"
            good &= abs(size - wanted) <= (0.02 * wanted if wanted >= SMALL else NODES * tables(model))
        print(f"{'ok  ' if good else 'FAIL'} {folder.name:22} largest difference {largest:.2e}{line}")
        failed |= not good
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
