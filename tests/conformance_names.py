#!/usr/bin/env python3
"""Checks that docs/conformance.md has all of its lines, and that the tests
that it names exist.

Usage: conformance_names.py DOCS_DIRECTORY TESTS_DIRECTORY
"""
import pathlib
import re
import sys

LINES = 103


def test_names(source):
    """The names in TEST_CASE("..." "...", ...), joined."""
    string = r'"(?:[^"\\]|\\.)*"'
    for case in re.finditer(rf"TEST_CASE\(((?:\s*{string})+)", source):
        parts = re.findall(string, case[1])
        yield "".join(part[1:-1] for part in parts).replace('\\"', '"')


def is_recorded(tests, name):
    kind, _, what = name.partition(" ")
    if kind == "trace":
        return (tests / "golden/traces" / f"{what}.jsonl").exists()
    if kind == "store":
        return (tests / "golden/stores" / f"{what}.manifest.json").exists()
    return name in (tests / "CMakeLists.txt").read_text()


def faults(docs, tests):
    rows = re.findall(
        r"^\| B(\d+) \|[^|]*\| ([^|]*) \|[^|]*\| (.*) \|$",
        (docs / "conformance.md").read_text(),
        re.MULTILINE,
    )
    numbers = [int(row[0]) for row in rows]
    if numbers != list(range(1, LINES + 1)):
        yield f"the lines are not B1 to B{LINES}, each once and in order"
    for number, mark, evidence in rows:
        named = re.findall(r'`(\w+)`: "(.*?)"(?=;|$)', evidence)
        if not named and mark != "quirk":
            yield f"B{number} names no test"
        for file, name in named:
            if file == "golden":
                found = is_recorded(tests, name)
            else:
                path = tests / f"{file}.cpp"
                found = path.exists() and name in test_names(path.read_text())
            if not found:
                yield f'B{number}: {file} has no test "{name}"'


def main():
    found = list(faults(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2])))
    for fault in found:
        print(fault)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
