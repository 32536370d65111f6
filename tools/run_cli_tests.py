#!/usr/bin/env python3
"""Run the command line tests: text files of commands and what they must print.

    tools/run_cli_tests.py --pare build/release/pare [tests/cli/NAME.test ...]

A test file is a list of steps. A step starts with a line `$ COMMAND` (run by bash in a fresh folder that
the file's steps share; `pare`, $SOURCE and $SHARED are set), followed by expectations:

    = TEXT          the next line of stdout is exactly TEXT
    ~ REGEX         stdout matches REGEX somewhere
    !~ REGEX        stdout does not match REGEX
    2~ REGEX        stderr matches REGEX somewhere
    json EXPR       EXPR is true; `o` is stdout parsed as JSON
    exit N          the exit code (0 when not given)
    save NAME       keep stdout as file NAME in the folder

`# ` starts a comment. `needs shared PATH` skips the file when PATH is not under $SHARED;
`needs isa NAME` skips it when this machine lacks the ISA, `needs program NAME` when PATH has no such program,
`needs mount` when one may not mount a file system in a name space of one's own.
"""
import argparse
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile


class Skip(Exception):
    pass


def parse(path, shared):
    steps = []
    for number, line in enumerate(path.read_text().splitlines(), 1):
        if line.startswith("needs shared "):
            if not (shared / line[13:].strip()).exists():
                raise Skip(f"needs {line[13:].strip()} of the shared data")
        elif line.startswith("needs isa "):
            flags = pathlib.Path("/proc/cpuinfo").read_text()
            want = {"avx2": "avx2", "avx512": "avx512_bf16", "amx": "amx_int8"}[line[10:].strip()]
            if want not in flags:
                raise Skip(f"needs {line[10:].strip()}")
        elif line.startswith("needs program "):
            if shutil.which(line[14:].strip()) is None:
                raise Skip(f"needs the program {line[14:].strip()}")
        elif line == "needs mount":
            mount = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
            if subprocess.run(mount, capture_output=True).returncode != 0:
                raise Skip("needs the right to mount in a name space")
        elif line.startswith("$ "):
            steps.append((number, line[2:], []))
        elif line.strip() and not line.startswith("#"):
            if not steps:
                raise ValueError(f"{path}:{number}: an expectation before any command")
            steps[-1][2].append((number, line))
    return steps


def check(line, out, err, code, lines):
    word, _, rest = line.partition(" ")
    if word == "=":
        got = lines.pop(0) if lines else None
        return None if got == rest else f"expected line {rest!r}, found {got!r}"
    if word == "~":
        return None if re.search(rest, out, re.M) else f"stdout does not match {rest!r}"
    if word == "!~":
        return None if not re.search(rest, out, re.M) else f"stdout matches {rest!r}"
    if word == "2~":
        return None if re.search(rest, err, re.M) else f"stderr does not match {rest!r}"
    if word == "json":
        try:
            value = json.loads(out)
        except ValueError as e:
            return f"stdout is not one JSON document: {e}"
        scope = {"o": value, "abs": abs, "len": len, "all": all, "any": any, "isinstance": isinstance, "math": math,
                 "list": list, "int": int, "float": float, "str": str, "sum": sum, "range": range, "sorted": sorted}
        try:
            holds = eval(rest, scope)
        except (KeyError, IndexError, TypeError) as e:
            return f"{rest} cannot be evaluated ({e!r}) for {out[:300]!r}"
        return None if holds else f"{rest} is false for {out[:300]!r}"
    if word == "exit":
        return None
    return f"unknown expectation {line!r}"


def run_file(path, args, environment):
    steps = parse(path, args.shared)
    with tempfile.TemporaryDirectory(prefix="pare-cli-") as folder:
        for number, command, expectations in steps:
            done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True,
                                  timeout=600, stdin=subprocess.DEVNULL)
            out, err = done.stdout.decode("utf-8", "replace"), done.stderr.decode("utf-8", "replace")
            wanted = next((int(l[5:]) for _, l in expectations if l.startswith("exit ")), 0)
            problems = []
            if done.returncode != wanted:
                problems.append((number, f"exit code {done.returncode}, expected {wanted}"))
            lines = out.splitlines()
            for at, line in expectations:
                if line.startswith("save "):
                    (pathlib.Path(folder) / line[5:].strip()).write_text(out)
                    continue
                problem = check(line, out, err, done.returncode, lines)
                if problem:
                    problems.append((at, problem))
            if problems:
                text = "".join(f"\n  {path}:{at}: {p}" for at, p in problems)
                return f"{text}\n    $ {command}\n    stdout: {out[:2000]}\n    stderr: {err[:2000]}"
    return None


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pare", type=pathlib.Path, required=True)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    source = pathlib.Path(__file__).resolve().parent.parent
    args.shared = pathlib.Path(os.environ.get("PARE_SHARED", source.parent / "shared"))
    binary = args.pare.resolve()
    if not binary.is_file():
        sys.exit(f"there is no program {binary}")
    environment = dict(os.environ, PATH=f"{binary.parent}:{os.environ['PATH']}", SOURCE=str(source),
                       SHARED=str(args.shared), LC_ALL="C.UTF-8")
    with tempfile.TemporaryDirectory(prefix="pare-home-") as home:
        environment.pop("XDG_DATA_HOME", None)
        passed = failed = skipped = 0
        for path in args.files or sorted((source / "tests" / "cli").glob("*.test")):
            own = pathlib.Path(home, path.stem)  # no file sees what another remembered of this machine
            own.mkdir()
            environment.update(HOME=str(own), XDG_CACHE_HOME=f"{own}/cache", PARE_LEDGER=f"{own}/runs.sqlite")
            try:
                problem = run_file(path, args, environment)
            except Skip as reason:
                skipped += 1
                print(f"skip {path.name}: {reason}")
                continue
            except subprocess.TimeoutExpired as e:
                problem = f" timed out: {e.cmd}"
            if problem:
                failed += 1
                print(f"FAIL {path.name}:{problem}")
            else:
                passed += 1
                print(f"ok   {path.name}")
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or passed + skipped == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
