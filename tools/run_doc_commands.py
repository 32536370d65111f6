#!/usr/bin/env python3
"""Run every command that the documents show: lines of ```console blocks that start with `$ pare`.

    tools/run_doc_commands.py --pare build/release/pare [FILE.md ...]

The commands of one file run in order in one fresh folder in which `models` is the repository's; each must exit with 0
(or with N where the line ends in `# exit N`).
"""
import argparse
import os
import pathlib
import re
import subprocess
import sys
import tempfile


def commands(path):
    inside = False
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("```"):
            inside = line.strip() == "```console"
        elif inside and line.startswith("$ pare "):
            yield number, line[2:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pare", type=pathlib.Path, required=True)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    source = pathlib.Path(__file__).resolve().parent.parent
    binary = args.pare.resolve()
    files = args.files or [source / "README.md", *sorted((source / "docs").rglob("*.md"))]
    ran = failed = 0
    for path in files:
        with tempfile.TemporaryDirectory(prefix="pare-docs-") as folder:
            os.symlink(source / "models", pathlib.Path(folder) / "models")
            environment = dict(os.environ, PATH=f"{binary.parent}:{os.environ['PATH']}", XDG_CACHE_HOME=folder + "/.cache")
            for number, command in commands(path):
                wanted = int(match[1]) if (match := re.search(r"# exit (\d+)$", command)) else 0
                done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
                                      stdin=subprocess.DEVNULL, timeout=600)
                ran += 1
                if done.returncode != wanted:
                    failed += 1
                    print(f"FAIL {path}:{number}: exit {done.returncode}\n  $ {command}\n{done.stdout[-500:]}{done.stderr[-500:]}")
    print(f"documents: {ran} commands, {failed} failed")
    return 1 if failed or ran == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
