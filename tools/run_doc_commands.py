#!/usr/bin/env python3
"""Run every command that the documents and the help show, and follow the documents' links.

    tools/run_doc_commands.py --pare build/release/pare [FILE.md ...]

In documents, commands are lines of ```console blocks that start with `$ pare`; in the help, the lines after "Examples:".
The commands of one file (or all of the help) run in order in one fresh folder in which `models` is the repository's; each
must exit with 0 (or with N where the line ends in `# exit N`). What the help's examples read is made first; an example
whose input this machine lacks is counted as skipped. A relative link must lead to a file or folder, and its anchor to a heading.
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


def sections(pare):
    text = subprocess.run([pare, "--help"], capture_output=True, text=True, check=True).stdout
    return re.findall(r"^  ([a-z]+) {2,}", text[text.index("Subcommands:"):], re.M)


def help_commands(pare):
    """The examples of every command's help; a command without one is a failure."""
    for name in sections(pare):
        text = subprocess.run([pare, name, "--help"], capture_output=True, text=True, check=True).stdout
        _, found, examples = text.partition("Examples:\n")
        yield name, [line for line in examples.splitlines() if line.strip()] if found else []


def make_inputs(folder, shared, source):
    """What the help's examples name. `out` is written by those of quantize."""
    stories = shared / "data" / "models" / "stories260K"
    for link, target in {"models": source / "models", "stories260K.bin": stories / "stories260K.bin",
                         "tok512.bin": stories / "tok512.bin", "MODEL": source / "models" / "pare-tales"}.items():
        if target.exists():
            os.symlink(target, folder / link)
    (folder / "prompts.jsonl").write_text("[5, 6, 7]\n[9]\n")
    (folder / "pairs.jsonl").write_text('{"sentence_good":"The cats sleep.","sentence_bad":"The cats sleeps."}\n')


def missing_input(command, folder):
    """A file that the command reads and that is not there: not what follows -o."""
    words = re.sub(r"(-o|--out) \S+", "", command).split()
    for word in words:
        if re.fullmatch(r"\S+\.(bin|gguf|jsonl|txt)", word) and not (folder / word).exists():
            return word
    return None


def run(command, folder, binary):
    environment = dict(os.environ, PATH=f"{binary.parent}:{os.environ['PATH']}", XDG_CACHE_HOME=f"{folder}/.cache",
                       PARE_LEDGER=f"{folder}/.runs.sqlite")
    wanted = int(match[1]) if (match := re.search(r"# exit (\d+)$", command)) else 0
    done = subprocess.run(["bash", "-c", command], cwd=folder, env=environment, capture_output=True, text=True,
                          stdin=subprocess.DEVNULL, timeout=600)
    if done.returncode == wanted:
        return None
    return f"exit {done.returncode}\n  $ {command}\n{done.stdout[-500:]}{done.stderr[-500:]}"


def run_help(binary, shared, source):
    ran, skipped, problems = 0, [], []
    with tempfile.TemporaryDirectory(prefix="pare-help-") as name:
        folder = pathlib.Path(name)
        make_inputs(folder, shared, source)
        listed = list(help_commands(binary))
        first = ["quantize", "choose"]  # they write what the others read
        for command, lines in sorted(listed, key=lambda item: item[0] not in first):
            if not lines:
                problems.append(f"pare {command} --help has no examples")
            for line in lines:
                if missing := missing_input(line, folder):
                    skipped.append(f"{line} (needs {missing})")
                    continue
                # Several examples write the same folder.
                line += " --force" if re.search(r" -o \S+", line) and "--force" not in line else ""
                ran += 1
                if problem := run(line, folder, binary):
                    problems.append(f"pare {command} --help: {problem}")
    return ran, skipped, problems


def anchors(path):
    heads = re.findall(r"^#+ +(.+)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}


def broken_links(path):
    text = re.sub(r"```.*?```|`[^`\n]*`", "", path.read_text(), flags=re.S)
    for target in re.findall(r"\[[^\]]*\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        file, _, anchor = target.partition("#")
        place = (path.parent / file).resolve() if file else path
        if not place.exists():
            yield f"{path}: the link {target} leads nowhere"
        elif anchor and place.suffix == ".md" and anchor not in anchors(place):
            yield f"{path}: the link {target} names no heading"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pare", type=pathlib.Path, required=True)
    parser.add_argument("files", nargs="*", type=pathlib.Path)
    args = parser.parse_args()
    source = pathlib.Path(__file__).resolve().parent.parent
    binary = args.pare.resolve()
    shared = pathlib.Path(os.environ.get("PARE_SHARED", source.parent / "shared"))
    if not binary.is_file():
        sys.exit(f"there is no program {binary}")
    documents = [*sorted(source.glob("*.md")), *sorted((source / "docs").rglob("*.md")),
                 *sorted((source / "models").rglob("*.md"))]
    ran, skipped, problems = (0, [], []) if args.files else run_help(binary, shared, source)
    for path in args.files or documents:
        problems += broken_links(path.resolve())
        with tempfile.TemporaryDirectory(prefix="pare-docs-") as folder:
            os.symlink(source / "models", pathlib.Path(folder) / "models")
            for number, command in commands(path):
                ran += 1
                if problem := run(command, folder, binary):
                    problems.append(f"{path}:{number}: {problem}")
    for line in skipped:
        print(f"skip {line}")
    for problem in problems:
        print(f"FAIL {problem}")
    print(f"documents: {ran} commands run, {len(skipped)} skipped, {len(problems)} problems")
    return 1 if problems or ran == 0 else 0


if __name__ == "__main__":
    sys.exit(main())
