#!/usr/bin/env python3
"""Copy a Llama-like checkpoint with planted outliers: a few inputs of every norm are made FACTOR times as large and
the columns that read them as much smaller. The function is the same; 8-bit inputs with one scale a token are not.

    tools/plant_outliers.py models/pare-tales planted [--channels 4] [--factor 50] [--seed 1]

Weights are written as float32, so that nothing but the order of rounding differs. Needs Python alone.
"""
import argparse
import array
import json
import pathlib
import random
import shutil
import struct

READERS = {  # norm -> matrices that read it, in Hugging Face's names
    "input_layernorm": ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"],
    "post_attention_layernorm": ["mlp.gate_proj", "mlp.up_proj"],
}


def floats(dtype, raw):
    """The values of a stored tensor as an array of float32."""
    if dtype == "F32":
        return array.array("f", raw)
    if dtype == "BF16":
        wide = bytearray(2 * len(raw))
        wide[2::4], wide[3::4] = raw[0::2], raw[1::2]
        return array.array("f", bytes(wide))
    if dtype == "F16":
        return array.array("f", struct.unpack(f"<{len(raw) // 2}e", raw))
    raise SystemExit(f"plant_outliers: {dtype} weights cannot be changed; want F32, BF16 or F16")


def read(folder):
    """{name: (shape, values)} of all safetensors files of a folder."""
    tensors = {}
    for path in sorted(folder.glob("*.safetensors")):
        data = path.read_bytes()
        size = struct.unpack("<Q", data[:8])[0]
        for name, entry in json.loads(data[8:8 + size]).items():
            if name != "__metadata__":
                begin, end = (8 + size + offset for offset in entry["data_offsets"])
                tensors[name] = (entry["shape"], floats(entry["dtype"], data[begin:end]))
    return tensors


def write(path, tensors):
    header, offset = {"__metadata__": {"format": "pt"}}, 0
    for name, (shape, values) in sorted(tensors.items()):
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + 4 * len(values)]}
        offset += 4 * len(values)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as out:
        out.write(struct.pack("<Q", len(text)) + text)
        for _, (_, values) in sorted(tensors.items()):
            out.write(values.tobytes())


def plant(tensors, layers, channels, factor, rng):
    for layer in range(layers):
        for norm, readers in READERS.items():
            at = f"model.layers.{layer}."
            if at + norm + ".weight" not in tensors:
                raise SystemExit(f"plant_outliers: there is no {at}{norm}.weight: not a Llama-like checkpoint")
            weight = tensors[at + norm + ".weight"][1]
            for k in sorted(rng.sample(range(len(weight)), channels)):
                weight[k] *= factor
                for reader in readers:
                    (rows, cols), values = tensors[at + reader + ".weight"]
                    for r in range(rows):
                        values[r * cols + k] /= factor


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("out", type=pathlib.Path)
    parser.add_argument("--channels", type=int, default=4)
    parser.add_argument("--factor", type=float, default=50)
    parser.add_argument("--seed", type=int, default=1)
    args = parser.parse_args()
    config = json.loads((args.model / "config.json").read_text())
    known = ("llama", "mistral", "qwen2", "qwen3")
    if config.get("model_type") not in known:
        raise SystemExit(f"plant_outliers: model_type {config.get('model_type')} is none of {', '.join(known)}")
    tensors = read(args.model)
    plant(tensors, config["num_hidden_layers"], args.channels, args.factor, random.Random(args.seed))
    args.out.mkdir(parents=True)
    for path in args.model.iterdir():
        if path.is_file() and path.suffix == ".json" and not path.name.endswith(".index.json"):
            shutil.copy(path, args.out / path.name)
    config["torch_dtype"] = "float32"
    (args.out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    write(args.out / "model.safetensors", tensors)


if __name__ == "__main__":
    main()
