"""Reads a packed model by the words of docs/FORMATS.md alone and predicts, in float64.

    python3 reference.py v1.safetensors rows.csv > probabilities.txt

Needs nothing but Python. It understands what the committed file uses: INT4 codes, one scale per table,
an id dictionary with whole numbers as keys, several ids in a bag, the dot interaction.
"""

import json
import math
import struct
import sys


def read(path):
    data = open(path, "rb").read()
    (length,) = struct.unpack_from("<Q", data)
    header = json.loads(data[8 : 8 + length])
    notes = header.pop("__metadata__")
    tensors = {}
    for name, t in header.items():
        start, end = t["data_offsets"]
        raw = data[8 + length + start : 8 + length + end]
        if t["dtype"] == "F32":
            tensors[name] = list(struct.unpack(f"<{len(raw) // 4}f", raw))
        else:
            tensors[name] = raw
    return notes, tensors


def codes(row, count):
    """Two's complement, the first code in the low half of its byte."""
    nibbles = [half for byte in row for half in (byte & 15, byte >> 4)]
    return [n - 16 if n > 7 else n for n in nibbles[:count]]


def dictionaries(raw, tables):
    assert raw[:8] == b"DQRM-IDS" and struct.unpack_from("<II", raw, 8) == (1, 1)
    counts = struct.unpack_from(f"<{tables}Q", raw, 32)
    at = 32 + 8 * tables
    found = []
    for n in counts:
        keys = struct.unpack_from(f"<{n}Q", raw, at)
        at += 8 * n
        found.append({key: place + 1 for place, key in enumerate(keys)})
    return found


def layer(tensors, name, x, relu):
    bias, scales, packed = tensors[name + ".bias"], tensors[name + ".weight.scale"], tensors[name + ".weight.codes"]
    stride = (len(x) * 4 + 7) // 8
    out = []
    for o, b in enumerate(bias):
        row = codes(packed[o * stride : (o + 1) * stride], len(x))
        y = scales[o] * sum(c * v for c, v in zip(row, x)) + b
        out.append(max(y, 0.0) if relu else y)
    return out


def main(model, rows):
    notes, tensors = read(model)
    assert notes["dqrm.packed"] == "1"
    manifest = json.loads(notes["dqrm.manifest"])
    shape, schema = manifest["shape"], manifest["input"]["schema"]
    assert manifest["tables"] == {"bits": 4, "offset": 0.0} and manifest["mlps"]["bits"] == 4
    dim, tables = shape["dim"], len(shape["rows"])
    maps = dictionaries(tensors["dqrm.ids"], tables)
    stride = (dim * 4 + 7) // 8
    lines = open(rows).read().splitlines()
    names = lines[0].split(schema["separator"])
    for line in lines[1:]:
        fields = dict(zip(names, line.split(schema["separator"])))
        x = [math.log(max(float(fields[c] or 0), 0.0) + 1.0) for c in schema["dense"]]
        for i in range(len(shape["bottom"]) - 1):
            x = layer(tensors, f"bot_l.{2 * i}", x, True)
        vectors = [x]
        bags = [[fields[c] or "0"] for c in schema["categorical"]]
        bags += [fields[c].split(schema["multi_hot_separator"]) if fields[c] else [] for c in schema["multi_hot"]]
        for k, bag in enumerate(bags):
            total = [0.0] * dim
            for key in bag:
                row = maps[k].get(int(key), 0)
                values = codes(tensors[f"emb_l.{k}.weight.codes"][row * stride : (row + 1) * stride], dim)
                total = [t + c * tensors[f"emb_l.{k}.weight.scale"][0] for t, c in zip(total, values)]
            vectors.append(total)
        x = x + [sum(a * b for a, b in zip(vectors[i], vectors[j])) for i in range(len(vectors)) for j in range(i)]
        last = len(shape["top"]) - 2
        for i in range(last + 1):
            x = layer(tensors, f"top_l.{2 * i}", x, i < last)
        print(1.0 / (1.0 + math.exp(-x[0])))


main(*sys.argv[1:])
