#!/usr/bin/env python3
"""Let faiss itself read a pair that callboard published, and compare both.

Usage: reread.py COMMAND [ARG ...]      Ends with status 77 without faiss.
"""
import json
import os
import subprocess
import sys
import tempfile

try:
    import faiss
    import numpy
except ImportError:
    print("faiss for Python is not installed")
    sys.exit(77)

HERE = os.path.dirname(os.path.abspath(__file__))
DIMENSION = 24
EMBEDDER = f"command:python3 {os.path.join(HERE, 'embedder.py')} {DIMENSION} 7"
WORDS = "river winter planet letter garden metal doctor city painter market engine mountain".split()


def content(number):
    return " ".join(WORDS[(number * step) % len(WORDS)] for step in (1, 5, 7)) + f" u{number}"


def main():
    with tempfile.TemporaryDirectory() as directory:
        session = subprocess.Popen(sys.argv[1:], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

        def ask(**message):
            session.stdin.write(json.dumps(message) + "\n")
            session.stdin.flush()
            answer = json.loads(session.stdout.readline())
            assert "r" in answer, (message, answer)
            return answer["r"]

        ask(op="new", dir=directory, namespace="chunks", dim=DIMENSION, threshold=-1, embedder=EMBEDDER)
        ask(op="upsert", data=[[f"id{i}", {"content": content(i)}] for i in range(200)])
        ask(op="commit")
        ask(op="finalize")
        ask(op="delete", ids=[f"id{i}" for i in range(0, 200, 3)])
        ask(op="upsert", data=[[f"id{i}", {"content": content(i + 1000), "file_path": "ü🚀"}] for i in range(0, 40)])
        ask(op="finalize")

        index = faiss.read_index(os.path.join(directory, "faiss_index_chunks.index"))
        with open(os.path.join(directory, "faiss_index_chunks.index.meta.json"), encoding="utf-8") as file:
            rows = {int(key): record for key, record in json.load(file).items()}
        assert isinstance(index, faiss.IndexFlat), type(index)
        assert index.d == DIMENSION and index.metric_type == faiss.METRIC_INNER_PRODUCT

        stored = ask(op="client_storage", vectors=True)["data"]
        vectors = {record["__id__"]: record.pop("__vector__") for record in stored}
        records = {record["__id__"]: record for record in stored}
        assert {record["__id__"]: record for record in rows.values()} == records
        for row, record in rows.items():
            assert numpy.allclose(index.reconstruct(row), vectors[record["__id__"]], rtol=0, atol=1e-6), record

        # Holes may be among faiss's hits; Python's storage skips them, too.
        probe = numpy.array([vectors["id7"]], dtype=numpy.float32)
        scores, found = index.search(probe, index.ntotal)
        theirs = {rows[int(row)]["__id__"]: float(score) for row, score in zip(found[0], scores[0]) if int(row) in rows}
        ours = {hit["id"]: hit["distance"] for hit in ask(op="query", emb=vectors["id7"], top_k=1000)}
        assert theirs.keys() == ours.keys()
        assert all(abs(theirs[i] - ours[i]) <= 1e-6 for i in ours)
        session.stdin.close()
        assert session.wait(60) == 0
    print(f"{len(rows)} rows read back by faiss")


main()
