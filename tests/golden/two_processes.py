#!/usr/bin/env python3
"""What two processes on one store owe each other: two `messages` sessions, in
processes of their own, that know of each other only the directory.

Usage: two_processes.py NAME -- COMMAND [ARG ...]   runs the test of that name
       two_processes.py --all -- COMMAND [ARG ...]  runs all

Numbers such as B92 are lines of docs/conformance.md. Where the original class
loses or shows something wrong, the test says what must happen instead.
"""
import hashlib
import json
import os
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
DIMENSION = 24
EMBEDDER = f"command:python3 {os.path.join(HERE, 'embedder.py')} {DIMENSION} 7"
# Seconds that something may take that must happen; nothing waits so long.
PATIENCE = 60
TESTS = {}


def test(name):
    def keep(function):
        TESTS[name] = function
        return function

    return keep


class Session:
    """One process with one handle. An operation is a method: its result."""

    def __init__(self, command, directory, namespace="entities"):
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, encoding="utf-8")
        self.new(dir=directory, namespace=namespace, dim=DIMENSION, threshold=-1, embedder=EMBEDDER)

    def answer(self, op, **members):
        self.process.stdin.write(json.dumps({"op": op, **members}) + "\n")
        self.process.stdin.flush()
        line = self.process.stdout.readline()
        assert line, f"the process ended at {op}"
        return json.loads(line)

    def __getattr__(self, op):
        def ask(**members):
            answer = self.answer(op, **members)
            assert "r" in answer, f"{op} {members}: {answer}"
            return answer["r"]

        return ask

    def error(self, op, **members):
        answer = self.answer(op, **members)
        assert "e" in answer, f"{op} {members} should fail: {answer}"
        return answer["e"]["code"]

    def put(self, key, content, **fields):
        self.upsert(data=[[key, {"content": content, **fields}]])

    def content(self, key):
        row = self.get_by_id(id=key)
        return row and row["content"]

    def found(self):
        """Ids of all that a query can find."""
        return sorted(row["id"] for row in self.query(text="river winter", top_k=100))

    def stored(self):
        return sorted(row["__id__"] for row in self.client_storage()["data"])

    def kill(self):
        self.process.kill()
        self.process.wait(PATIENCE)

    def end(self):
        self.process.stdin.close()
        assert self.process.wait(PATIENCE) == 0, "the process did not end with status 0"


def equal(got, want, line):
    assert got == want, f"{line}: {got!r} is not {want!r}"


@test("what one process commits every kind of read of another shows")
def reads(start):
    one, other = start(), start()
    equal(other.found(), [], "B45")
    one.put("a", "river winter")
    equal((other.content("a"), other.found(), other.pending()), (None, [], []), "B31, B39")
    one.commit()
    equal(other.found(), ["a"], "B91, B92")
    one.put("b", "planet letter")
    one.commit()
    equal(other.content("b"), "planet letter", "B91, B92")
    one.put("c", "garden metal")
    one.commit()
    equal([row and row["id"] for row in other.get_by_ids(ids=["c", "x", "a"])], ["c", None, "a"], "B53, B92")
    one.put("d", "doctor city")
    one.commit()
    equal(list(other.get_vectors_by_ids(ids=["d"])), ["d"], "B55, B92")
    one.put("e", "market engine")
    one.commit()
    equal(other.stored(), ["a", "b", "c", "d", "e"], "B51, better: what others commit is shown")
    equal(other.get_vectors_by_ids(ids=["a"]), one.get_vectors_by_ids(ids=["a"]), "B55")


@test("a commit keeps what another process has committed, and what is pending stays")
def merge(start):
    one, other = start(), start()
    one.put("mine", "river winter")
    other.put("theirs", "planet letter")
    other.commit()
    equal(one.pending(), ["mine"], "B68, B78")
    equal(one.found(), ["theirs"], "B39, B92")
    one.commit()
    equal(one.found(), ["mine", "theirs"], "B68, B100")
    equal(other.found(), ["mine", "theirs"], "B68, B92, B100")
    for number in range(10):
        for name, session in (("one", one), ("other", other)):
            session.put(f"{name} {number}", "garden metal")
            session.commit()
    equal(len(one.found()), 22, "B68, B100")
    equal(one.stored(), other.stored(), "B68, B100")


@test("of two processes that commit one id the last wins, whole")
def last_wins(start):
    one, other = start(), start()
    one.put("a", "river winter", entity_name="A", source_id="s1")
    other.put("a", "planet letter", entity_name="A")
    one.commit()
    equal(other.content("a"), "planet letter", "B52: its own pending record comes first")
    equal(other.query(text="river winter", top_k=1)[0]["content"], "river winter", "B39, B92")
    other.commit()
    for session in (one, other):
        row = session.get_by_id(id="a")
        equal((row["content"], "source_id" in row), ("planet letter", False), "B33, B70")
        equal(session.stored(), ["a"], "B70")
    # Whose upsert came first does not count: one's is the older, and the last.
    one.put("b", "garden metal")
    other.put("b", "doctor city")
    other.commit()
    one.commit()
    equal(other.content("b"), "garden metal", "B70, B92")


@test("uncommitted deletes outlive what another process commits and reach the next commit")
def deletes(start):
    one, other = start(), start()
    one.upsert(data=[[i, {"content": f"river {i}"}] for i in ("a", "b", "c")])
    one.commit()
    other.delete(ids=["a", "nothing"])
    equal((other.content("a"), other.found()), (None, ["b", "c"]), "B59, B60")
    equal(one.found(), ["a", "b", "c"], "B59")
    one.put("d", "planet letter")
    one.commit()
    equal((other.content("a"), other.found(), other.stored()), (None, ["b", "c", "d"], ["b", "c", "d"]), "B95")
    other.commit()
    equal((one.content("a"), one.found()), (None, ["b", "c", "d"]), "B59, B95")
    # A row that the other has replaced meanwhile goes as well: the last commit wins.
    other.delete(ids=["b"])
    one.put("b", "garden metal")
    one.commit()
    other.commit()
    equal(one.found(), ["c", "d"], "B68, B95")
    # An id deleted and upserted again is the new row.
    other.delete(ids=["c"])
    other.put("c", "doctor city")
    one.commit()
    other.commit()
    equal(one.content("c"), "doctor city", "B63")


@test("entities and relations deleted by one process are gone in another")
def deletes_by_name(start):
    one, other = start(), start()
    name = "E river"
    entity = "ent-" + hashlib.md5(name.encode()).hexdigest()
    one.put(entity, "river winter", entity_name=name)
    one.commit()
    equal(other.content(entity), "river winter", "B92")
    other.delete_entity(name=name)
    other.commit()
    equal(one.content(entity), None, "B64")
    one, other = start("relationships"), start("relationships")
    one.put("rel-1", "A knows B", src_id="A", tgt_id="B")
    other.put("rel-2", "B knows C", src_id="B", tgt_id="C")
    other.put("rel-3", "C knows D", src_id="C", tgt_id="D")
    one.commit()
    other.commit()
    one.delete_entity_relation(name="B")
    one.commit()
    equal(other.found(), ["rel-3"], "B65")


@test("a drop empties another process and overtakes what that had pending")
def drop(start):
    one, other = start(), start()
    one.put("a", "river winter")
    one.commit()
    other.put("b", "planet letter")
    equal(one.drop(), {"status": "success", "message": "data dropped"}, "B81")
    equal((other.content("a"), other.found()), (None, []), "B81, B83")
    answer = other.commit()
    equal((answer["committed"], answer["discarded"]), (0, 1), "B83, better: discarded and counted")
    equal((one.found(), other.found()), ([], []), "B83")
    other.put("c", "garden metal")
    other.commit()
    equal(one.found(), ["c"], "B81: the store can be used afterwards")
    one.drop()
    one.drop()
    equal(other.found(), [], "B81: it can be repeated")


@test("finalize keeps what another process has committed and publishes all of it")
def finalize(start):
    one, other = start(), start()
    one.put("a", "river winter")
    other.put("b", "planet letter")
    other.commit()
    one.finalize()
    equal(other.found(), ["a", "b"], "B86, B87")
    with open(os.path.join(one.directory, "faiss_index_entities.index.meta.json"), encoding="utf-8") as file:
        published = sorted(record["__id__"] for record in json.load(file).values())
    equal(published, ["a", "b"], "B86, B87")
    generation = one.stats()["generation"]
    other.finalize()
    equal(one.stats()["generation"], generation, "B85")
    other.put("c", "garden metal")
    other.commit()
    equal(one.found(), ["a", "b", "c"], "B88: the handle stays usable, and hears")


@test("a commit of nothing tells the generation that another process has reached")
def nothing(start):
    one, other = start(), start()
    one.put("a", "river winter")
    reached = one.commit()
    equal(other.commit(), {"generation": reached["generation"], "committed": 0, "discarded": 0}, "B76")


@test("a process that is killed leaves its commits, nothing pending, and no lock")
def killed(start):
    one, other = start(), start()
    one.put("a", "river winter")
    one.commit()
    one.put("b", "planet letter")
    one.delete(ids=["a"])
    one.kill()
    equal(other.found(), ["a"], "B68, B98")
    other.put("c", "garden metal")
    other.commit()
    equal(start().found(), ["a", "c"], "B98, B99")


@test("a watcher hears of each commit of another process once, in order, and of no other store's")
def events(start):
    one, other, elsewhere = start(), start(), start("chunks")
    watch = other.watch()
    number = watch["watch"]
    elsewhere.put("x", "river winter")
    elsewhere.commit()
    generations = []
    for ids in (["a", "b"], ["c"]):
        one.upsert(data=[[i, {"content": f"river {i}"}] for i in ids])
        generations.append(one.commit()["generation"])
        event = other.next_event(watch=number, timeout=PATIENCE)
        equal(event, {"event": "commit", "generation": generations[-1], "changed": ids, "removed": []}, "B91")
        equal(other.content(ids[0]), f"river {ids[0]}", "B92: what an event tells of is there")
    assert watch["generation"] < generations[0] < generations[1], "B68: generations grow"
    one.delete(ids=["a"])
    generation = one.commit()["generation"]
    event = other.next_event(watch=number, timeout=PATIENCE)
    equal((event["generation"], event["changed"], event["removed"]), (generation, [], ["a"]), "B59, B91")
    one.drop()
    equal(other.next_event(watch=number, timeout=PATIENCE)["event"], "drop", "B81, B91")
    equal(other.next_event(watch=number), None, "B91: no other store's, and none twice")
    other.put("own", "garden metal")
    other.commit()
    equal(other.next_event(watch=number, timeout=PATIENCE)["changed"], ["own"], "B91: the caller is told, too")
    other.unwatch(watch=number)
    equal(other.error("next_event", watch=number), "invalid_argument", "an ended watch has no events")


@test("a process can wait for what another one commits")
def await_generation(start):
    one, other = start(), start()
    one.put("a", "river winter")
    generation = one.commit()["generation"]
    assert other.await_generation(generation=generation, timeout=PATIENCE) >= generation, "B92"
    equal(other.content("a"), "river winter", "B92")
    equal(other.error("await_generation", generation=generation + 1, timeout=0.01), "timed_out", "nothing came")
    equal(other.found(), ["a"], "B92: a wait in vain changes nothing")


@test("a commit that expects another generation than somebody has made is refused")
def conflict(start):
    one, other = start(), start()
    seen = other.stats()["generation"]
    one.put("a", "river winter")
    one.commit()
    other.put("a", "planet letter")
    equal(other.error("commit", expected_generation=seen), "conflict", "B100: no update is lost unseen")
    equal((one.content("a"), other.pending()), ("river winter", ["a"]), "B68")
    other.commit(expected_generation=other.stats()["generation"])
    equal(one.content("a"), "planet letter", "B70")


def run(name, command):
    sessions = []
    with tempfile.TemporaryDirectory() as directory:

        def start(namespace="entities"):
            sessions.append(Session(command, directory, namespace))
            sessions[-1].directory = directory
            return sessions[-1]

        try:
            TESTS[name](start)
            for session in sessions:
                if session.process.poll() is None:
                    session.end()
        finally:
            for session in sessions:
                session.kill()
    print(f"passed: {name}")


def main():
    split = sys.argv.index("--")
    names = list(TESTS) if sys.argv[1] == "--all" else sys.argv[1:split]
    for name in names:
        run(name, sys.argv[split + 1:])


main()
