#!/usr/bin/env python3
"""Breaks callboard on purpose, one way at a time, and shows that a test notices.

Each mutant of mutants.py is applied to a copy of the tree, which has a build of its own; only what
its programs need is built; they run until one of them is red. The user's tree is only read.

Exit status: 0: all were found; 1: some were not; 2: list or tree are in no state to be checked.
"""

import argparse
import collections
import concurrent.futures
import fcntl
import fnmatch
import hashlib
import html
import json
import os
import pathlib
import queue
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time

sys.dont_write_bytecode = True

from mutants import MUTANTS, PROGRAMS  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = "build/release"
CONFIGURE = ["cmake", "--preset", "release", "-DCALLBOARD_BUILD_BENCH=OFF",
             "-DCALLBOARD_BUILD_EXAMPLES=OFF"]
MARKER = ".copy-for-mutation"
# For a part of a program's tests.
PART_LIMIT_SECONDS = 120

Outcome = collections.namedtuple("Outcome", "red culprit after seconds output")


class Unfit(Exception):
    """What keeps the check from being one."""


# -- The copy of the tree ------------------------------------------------------


class Copy:
    """A tree of our own with a build of its own; kept ones are brought up to date."""

    def __init__(self, folder):
        self.folder = folder
        if folder.exists() and not (folder / MARKER).exists():
            raise Unfit(f"{folder} is no copy made by this script: remove it")
        self.update()
        if not (folder / BUILD / "build.ninja").exists():
            self.call(CONFIGURE, "configure")

    def update(self):
        """Touches only files that differ, so that only those are built."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / MARKER).touch()
        for name in files_of_tree():
            source, target = ROOT / name, self.folder / name
            if not target.exists() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
                os.utime(target)

    def call(self, command, what):
        done = subprocess.run(command, cwd=self.folder, text=True, errors="replace",
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env=environment(self.folder), check=False)
        if done.returncode != 0:
            raise Unfit(f"cannot {what}:\n{tail(done.stdout, 40)}")

    def build(self, targets, jobs):
        self.call(["ninja", "-C", BUILD, f"-j{jobs}", *targets], "build " + " ".join(targets))

    def run(self, step):
        program, tests = step
        command = [part.replace("{build}", BUILD) for part in program.command]
        limit = min(program.limit_seconds, PART_LIMIT_SECONDS) if tests else program.limit_seconds
        with tempfile.TemporaryFile("w+", errors="replace") as out:
            start = time.monotonic()
            with subprocess.Popen(command + ([tests] if tests else []), cwd=self.folder,
                                  stdin=subprocess.DEVNULL, stdout=out,
                                  stderr=subprocess.STDOUT, start_new_session=True,
                                  env=environment(self.folder) | program.environment) as child:
                status = wait(child, limit)
            seconds = time.monotonic() - start
            out.seek(0)
            return judged(program, status, seconds, out.read())


def files_of_tree():
    """All that git knows or would add, as it is now."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others",
                             "--exclude-standard"],
                            cwd=ROOT, stdout=subprocess.PIPE, text=True, check=True)
    names = [name for name in listed.stdout.split("\0") if name]
    return [name for name in names if (ROOT / name).is_file()]


def fingerprint_of_tree():
    """Of all that can change a result: texts for people, and this folder, cannot."""
    out = hashlib.sha256()
    for name in sorted(files_of_tree()):
        if not name.endswith(".md") and not name.startswith("tests/mutation/"):
            content = hashlib.sha256((ROOT / name).read_bytes()).hexdigest()
            out.update(f"{name}\0{content}\0".encode())
    return out.hexdigest()


def environment(folder):
    """Copies in several folders share what the compiler cache has."""
    return os.environ | {"CCACHE_BASEDIR": str(folder), "CCACHE_NOHASHDIR": "1"}


def wait(child, limit_seconds):
    """The exit status, or None after the limit. Nothing that the child started is left."""
    try:
        return child.wait(timeout=limit_seconds)
    except subprocess.TimeoutExpired:
        return None
    finally:
        try:
            os.killpg(child.pid, signal.SIGKILL)
        except ProcessLookupError:
            pass


def tail(text, lines):
    return "\n".join(text.splitlines()[-lines:])


# -- What a program says -------------------------------------------------------


def judged(program, status, seconds, output):
    """Catch2's XML names each test before it runs: the last one is the culprit."""
    tests = re.findall(r'<TestCase name="([^"]*)"', output)
    culprit = html.unescape(tests[-1]) if tests else program.name
    counted = re.findall(program.counted, output) if program.counted else []
    after = [f"{program.unit} {counted[-1]}"] if counted else []
    if status is None:
        after.append("no end")
    elif status < 0:
        after.append(f"killed by {signal.Signals(-status).name}")
    if program.is_catch and status == 0 and not tests:
        raise Unfit(f"{program.name} ran no test:\n{tail(output, 10)}")
    return Outcome(status != 0, culprit, after, seconds, output)


# -- Mutants -------------------------------------------------------------------


def steps_of(mutant):
    """(program, filter of tests or "") in the order in which they are tried."""
    for each in mutant.found_by:
        name, _, tests = each.partition(": ")
        yield PROGRAMS[name], tests


def check_list(mutants):
    """A mutant whose text is gone would prove nothing, without anybody noticing."""
    wrong = []
    names = collections.Counter(each.name for each in mutants)
    wrong += [f"{name}: there are {count} of this name" for name, count in names.items()
              if count > 1]
    for each in mutants:
        path = ROOT / each.file
        count = path.read_text().count(each.old) if path.is_file() else 0
        if count != 1:
            wrong.append(f"{each.name}: its text is {count} times in {each.file}, not once")
        wrong += [f"{each.name}: there is no program {name}"
                  for name in (step.partition(": ")[0] for step in each.found_by)
                  if name not in PROGRAMS]
    if wrong:
        raise Unfit("the list of mutants has to be mended:\n  " + "\n  ".join(wrong))


def check_unmutated(copy, mutants, jobs):
    steps = {step: None for each in mutants for step in steps_of(each)}
    copy.build(sorted({program.target for program, _ in steps}), jobs)
    for program, tests in steps:
        outcome = copy.run((program, tests))
        say(f"unmutated  {program.name} {tests or ''} ({outcome.seconds:.1f} s)")
        if outcome.red:
            raise Unfit(f"{program.name} is red without any mutant:\n"
                        f"{tail(outcome.output, 60)}")


def tried(copy, mutant, jobs):
    """What found the mutant, as a row of the results; `found_by` is empty if nothing did."""
    path = copy.folder / mutant.file
    original = path.read_text()
    path.write_text(original.replace(mutant.old, mutant.new))
    try:
        for program, tests in steps_of(mutant):
            copy.build([program.target], jobs)
            outcome = copy.run((program, tests))
            if outcome.red:
                return row_of(mutant, "found", found_by(program, outcome),
                              ", ".join([*outcome.after, f"{outcome.seconds:.1f} s"]))
        return row_of(mutant, "SURVIVED", "", "")
    except Unfit as reason:
        return row_of(mutant, "ERROR", "", str(reason))
    finally:
        path.write_text(original)


def found_by(program, outcome):
    if outcome.culprit == program.name or program.counted:
        return program.name
    return f"{program.name}: {outcome.culprit}"


def row_of(mutant, status, finder, after):
    return {"name": mutant.name, "file": mutant.file, "old": mutant.old, "new": mutant.new,
            "status": status, "found_by": finder, "after": after}


# -- Results -------------------------------------------------------------------


def key_of(row):
    return tuple(row.get(part) for part in ("name", "file", "old", "new", "tree"))


def known_rows(path, mutants, tree):
    """What was found before in this tree, of the mutants as they are now."""
    if not path or not path.exists():
        return {}
    wanted = {key_of(row_of(each, "", "", "") | {"tree": tree}) for each in mutants}
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return {row["name"]: row for row in rows
            if key_of(row) in wanted and row["status"] == "found"}


def table_of(rows):
    lines = ["| mutant | file | found by | after |", "| --- | --- | --- | --- |"]
    for row in rows:
        finder = row["found_by"] or f"**{row['status']}**"
        after = row["after"].splitlines()[0] if row["after"] else ""
        cells = (row["name"], f"`{row['file']}`", finder, after)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join(lines)


printing = threading.Lock()


def say(line):
    with printing:
        print(line, flush=True)


# -- All of it -----------------------------------------------------------------


def check_all(options, mutants, scratch):
    """The rows of all mutants, in the order of the list."""
    tree = fingerprint_of_tree()
    rows = known_rows(options.resume, mutants, tree)
    cores = os.cpu_count() or 1
    left = [each for each in mutants if each.name not in rows]
    if left:
        copies = queue.Queue()
        first = Copy(scratch / "main")
        check_unmutated(first, left, cores)
        copies.put(first)
        targets = sorted({program.target for each in left for program, _ in steps_of(each)})
        for number in range(2, options.jobs + 1):
            copy = Copy(scratch / f"main-{number}")
            copy.build(targets, cores)
            copies.put(copy)
        if fingerprint_of_tree() != tree:
            raise Unfit("the tree has changed while it was copied: start again")

    def take(mutant):
        copy = copies.get()
        try:
            row = tried(copy, mutant, max(1, cores // options.jobs))
        finally:
            copies.put(copy)
        say(f"{row['status']:9}  {row['name']}: {row['found_by']} ({row['after']})")
        if options.resume:
            with printing, options.resume.open("a") as out:
                out.write(json.dumps(row | {"tree": tree}) + "\n")
        return row

    with concurrent.futures.ThreadPoolExecutor(options.jobs) as workers:
        for row in workers.map(take, left):
            rows[row["name"]] = row
    return [rows[each.name] for each in mutants]


def parsed_options():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", maxsplit=1)[0])
    parser.add_argument("--only", metavar="PATTERN", help="mutants whose name or file has this in "
                        "it, or matches it (as shells do)")
    parser.add_argument("--list", action="store_true", help="show the mutants and do nothing")
    parser.add_argument("--jobs", type=int, default=1, metavar="N",
                        help="mutants at a time, each in a copy of its own (default: 1)")
    parser.add_argument("--keep", action="store_true",
                        help="keep the copies and their builds for the next run")
    parser.add_argument("--scratch", type=pathlib.Path, metavar="DIR",
                        default=pathlib.Path(tempfile.gettempdir(),
                                             f"callboard-mutation-{os.getuid()}"),
                        help="where the copies are (default: %(default)s)")
    parser.add_argument("--table", type=pathlib.Path, metavar="FILE",
                        help="write the table there, too")
    parser.add_argument("--resume", type=pathlib.Path, metavar="FILE",
                        help="append results to this file, and skip what it has found already in the "
                        "tree as it is")
    options = parser.parse_args()
    if options.jobs < 1:
        parser.error("--jobs takes a number from 1 on")
    return options


def is_wanted(mutant, pattern):
    return pattern is None or any(pattern in text or fnmatch.fnmatch(text, pattern)
                                  for text in (mutant.name, mutant.file))


def checked(options, mutants):
    options.scratch.mkdir(parents=True, exist_ok=True)
    with open(options.scratch / "lock", "w", encoding="utf-8") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Unfit(f"another run uses {options.scratch}: see --scratch") from None
        try:
            return check_all(options, mutants, options.scratch)
        finally:
            if not options.keep:
                for each in options.scratch.glob("main*"):
                    if (each / MARKER).exists():
                        shutil.rmtree(each)


def main():
    options = parsed_options()
    mutants = [each for each in MUTANTS if is_wanted(each, options.only)]
    if options.list:
        for each in mutants:
            print(f"{each.file}: {each.name} ({', '.join(each.found_by)})")
        return 0
    try:
        check_list(mutants)
        rows = checked(options, mutants)
    except Unfit as reason:
        print(f"mutate: {reason}", file=sys.stderr)
        return 2
    table = table_of(rows)
    print(f"\n{table}")
    if options.table:
        options.table.write_text(table + "\n")
    states = collections.Counter(row["status"] for row in rows)
    print("\nmutate: " + ", ".join(f"{count} {status}" for status, count in states.items()))
    return 2 if states["ERROR"] else 1 if states["SURVIVED"] else 0


if __name__ == "__main__":
    sys.exit(main())
