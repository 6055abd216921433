"""Runs every command of a document and compares what it prints with what the document shows.

Reads the ```console blocks of the file: a line that starts with "$ " is a command, the lines below it are its output. Each shown line must
appear in the real output, in order, up to white space; a line with a lone "…" skips any lines, "…" inside a line stands for any text.
In a block marked ```console measured the numbers belong to one machine: there only the exit code and the words are compared, not the numbers.
A command that should fail says so: "$ command   # exit 2".

usage: documented_commands.py FILE.md ROOFTREE_BINARY
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile


def blocks(text):
    for match in re.finditer(r"^```console([^\n]*)\n(.*?)^```", text, re.M | re.S):
        line = text.count("\n", 0, match.start()) + 1
        yield line, match.group(1).split(), match.group(2).splitlines()


def inline_commands(text):
    """`rooftree ...` in running text and tables; capital letters stand for what a reader fills in."""
    prose = re.sub(r"^```.*?^```", lambda m: "\n" * m.group(0).count("\n"), text, flags=re.M | re.S)
    for match in re.finditer(r"`(rooftree [^`]+)`", prose):
        if not re.search(r"\b(FOLDER|FILE|MODEL|MACHINE|NAME)\b|path/", match.group(1)):
            yield prose.count("\n", 0, match.start()) + 1, match.group(1)


def commands(lines):
    current = None
    for line in lines:
        if line.startswith("$ "):
            if current:
                yield current
            current = (line[2:], [])
        elif current:
            current[1].append(line)
    if current:
        yield current


def pattern(line, measured):
    parts = []
    for word in line.split():
        if measured:
            # Words stay, numbers and bars may differ.
            parts.append(re.sub(r"(\\\.)?\d+((\\\.)?\d+)*", r"[-+0-9.,e]+", re.escape(word)).replace("…", ".*"))
        else:
            parts.append(re.escape(word).replace("…", ".*"))
    return re.compile(r"\s+".join(parts))


def compare(expected, printed, measured):
    position = 0
    for line in expected:
        if not line.strip() or line.strip() == "…":
            continue
        wanted = pattern(line, measured)
        while position < len(printed) and not wanted.search(" ".join(printed[position].split())):
            position += 1
        if position == len(printed):
            return line
        position += 1
    return None


def main():
    document, binary = pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]).resolve()
    root = document.resolve().parent
    while not (root / "CMakeLists.txt").exists():
        root = root.parent
    passed = failed = skipped = 0
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch)
        (folder / "bin").mkdir()
        (folder / "work").mkdir()
        (folder / "bin" / "rooftree").symlink_to(binary)
        run = folder / "work" / "run"
        run.write_text('#!/bin/sh\n[ $# -eq 0 ] && set -- overview\nexec rooftree "$@"\n')
        run.chmod(0o755)
        environment = dict(os.environ, PATH=f"{folder / 'bin'}:{os.environ['PATH']}", XDG_DATA_HOME=str(folder / "data"),
                           XDG_CACHE_HOME=str(folder / "cache"), COLUMNS="100", NO_COLOR="1")
        text = document.read_text(encoding="utf-8")
        found = [(line, flags, command, expected) for line, flags, content in blocks(text) for command, expected in commands(content)]
        found += [(line, [], command, []) for line, command in inline_commands(text)]
        for line, flags, command, expected in found:
            wanted_exit = 0
            if exit_note := re.search(r"\s*#\s*exit (\d+)\s*$", command):
                wanted_exit = int(exit_note.group(1))
            if re.match(r"(\./test|git|scripts/|cd |sudo|ctest|build/)", command):
                skipped += 1  # set-up and tests cannot run inside a test
                continue
            shared = root / ".." / "shared"
            if "../shared" in command:
                if not shared.exists():
                    print(f"{document.name}:{line}: SKIPPED (no validation data beside the checkout): {command}")
                    skipped += 1
                    continue
                command = command.replace("../shared", str(shared.resolve()))
            done = subprocess.run(["bash", "-c", command], cwd=folder / "work", env=environment, text=True, capture_output=True,
                                  timeout=300)
            printed = (done.stdout + done.stderr).splitlines()
            missing = compare(expected, printed, "measured" in flags)
            if done.returncode != wanted_exit or missing is not None:
                failed += 1
                print(f"{document.name}:{line}: FAILED: $ {command}\n  exit code {done.returncode}, expected {wanted_exit}")
                if missing is not None:
                    print(f"  the document shows a line that was not printed:\n    {missing}")
                print("  it printed:\n" + "\n".join("    " + text for text in printed[:200]))
            else:
                passed += 1
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed or not passed else 0


if __name__ == "__main__":
    sys.exit(main())
