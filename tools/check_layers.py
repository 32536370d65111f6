#!/usr/bin/env python3
"""Read every #include in src/ and fail on an arrow that goes up (docs/design.md, Layers).

    tools/check_layers.py [SOURCE_DIR]
"""
import pathlib
import re
import sys

# layer -> layers it may include, besides itself
BELOW = {
    "base": [],
    "file": ["base"],
    "number": ["base", "file"],
    "kernel": ["base", "number"],
    "text": ["base", "file"],
    "model": ["base", "file", "number", "kernel", "text"],
    "cost": ["base", "number", "kernel", "model"],
    "engine": ["base", "file", "number", "kernel", "text", "model", "cost"],
    "train": ["base", "file", "number", "kernel", "text", "model", "cost", "engine"],
    "pass": ["base", "file", "number", "kernel", "text", "model", "cost", "engine", "train"],
    "probe": ["base", "file", "number", "kernel", "text", "model", "cost", "engine"],
    "choose": ["base", "number", "model", "cost"],
    "recipe": ["base", "file", "number", "text", "model", "cost", "engine", "pass", "probe", "choose"],
    "report": ["base", "file", "number", "model", "cost", "recipe"],
    "app": ["base", "file", "number", "kernel", "text", "model", "cost", "engine", "train", "pass", "probe",
            "choose", "recipe", "report"],
}
# kernel/ops.h holds the activation functions and kernel/isa.h the machine: plain contracts a Spec may name.
KERNEL_CONTRACTS = {"kernel/ops.h", "kernel/isa.h"}
INTRINSICS = re.compile(r"<(immintrin|x86intrin|emmintrin|smmintrin|avx\w*intrin)\.h>")
ISA_FILE = re.compile(r"_(avx2|avx512|amx)\.(cpp|h)$|simd_\w+\.h$|\.inl$")
TEST_EXTRA = {"model"}  # unit tests may use tiny models and the layers their own layer may use


def main():
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else ".") / "src"
    wrong = []
    for path in sorted(root.rglob("*")):
        if path.suffix not in (".h", ".cpp", ".inl"):
            continue
        layer = path.relative_to(root).parts[0]
        test = re.search(r"_(test|bench|fuzz)\.cpp$", path.name) is not None
        for number, line in enumerate(path.read_text().splitlines(), 1):
            if INTRINSICS.search(line) and not ISA_FILE.search(path.name) and line.startswith("#include"):
                wrong.append(f"{path}:{number}: intrinsics outside a file with an ISA suffix")
            match = re.match(r'#include "([\w./]+)"', line)
            if not match or "/" not in match[1]:
                continue
            target = match[1].split("/")[0]
            if target == layer or target not in BELOW or match[1] in KERNEL_CONTRACTS:
                continue
            if target not in BELOW[layer] and not (test and target == "support"):
                wrong.append(f"{path}:{number}: {layer} may not include {match[1]}")
        if layer not in BELOW:
            wrong.append(f"{path}: {layer} is not a layer")
    print("\n".join(wrong) if wrong else "layers: all includes point down")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
