#!/usr/bin/env bash
# What the callboard command promises to shells: statuses, messages, output.
# Usage: cli_test.sh COMMAND
set -uo pipefail

callboard=$(realpath "$1")
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cd "$scratch" || exit 1
unset CALLBOARD_DIR COLUMNS
failures=0

fail() {
  failures=$((failures + 1))
  echo "FAILED: $*"
  echo "  status $status"
  sed 's/^/  out: /' out
  sed 's/^/  err: /' err
}

# run <status> <argument>...: the command must end with that status. What it
# printed is in the files out and err.
run() {
  local want=$1
  shift
  "$callboard" "$@" >out 2>err </dev/null
  status=$?
  [[ $status -eq $want ]] || fail "callboard $* should end with status $want"
}

# printed <file> <extended regular expression>: a line of it must match.
printed() {
  grep -qE -- "$2" "$1" || fail "no line of $1 matches: $2"
}

silent() {
  [[ ! -s $1 ]] || fail "$1 should be empty"
}

one_error_line() {
  [[ $(wc -l <err) -eq 1 ]] || fail "standard error should be one line"
  printed err "^callboard: $1: "
  silent out
}

echo "== help and usage"
run 0 --version
printed out '^callboard [0-9]+\.[0-9]+\.[0-9]+$'
run 0 --help
printed out 'Exit status'
for command in ingest query get delete stats verify checkpoint watch train \
  messages; do
  printed out "^  $command "
done
for command in ingest query get delete stats verify checkpoint watch train \
  messages; do
  run 0 "$command" --help
  printed out 'Exit status'
  silent err
done
run 2
one_error_line invalid_argument
run 2 frobnicate
one_error_line invalid_argument
run 2 query --dir data
one_error_line invalid_argument
run 2 query text
one_error_line invalid_argument
run 2 query --dir data --top-k 0 text
one_error_line invalid_argument
run 2 delete --dir data
one_error_line invalid_argument
run 2 stats --dir data --verbose --quiet
one_error_line invalid_argument
run 2 stats --dir data --namespace a/b
one_error_line invalid_argument
run 2 ingest --dir data --embedder frobnicate:3
one_error_line invalid_argument
run 2 ingest --dir data --embedder command:true
one_error_line invalid_argument
run 2 ingest --dir data --format xml
one_error_line invalid_argument
for option in "--events 0" "--events -1" "--events x" "--timeout -1" \
  "--timeout nan" "--timeout 1e99" "--lock-timeout nan" --frobnicate extra; do
  # shellcheck disable=SC2086
  run 2 watch --dir data $option
  one_error_line invalid_argument
done

echo "== a store that does not exist"
for command in "query text" "get id" "delete id" stats verify checkpoint watch; do
  # shellcheck disable=SC2086
  run 1 $command --dir missing
  one_error_line not_found
done
[[ ! -e missing ]] || fail "the directory was made"
mkdir empty
run 1 stats --dir empty --workspace w
one_error_line not_found
run 1 stats --dir empty --json
printed err '^\{"e": \{"code": "not_found", "message": "there is no store '
[[ -z $(ls -A empty) ]] || fail "files were made in the empty directory"

echo "== ingest"
cat >good.jsonl <<'END'
{"id": "tea", "content": "pour boiling water over the tea", "file_path": "kitchen", "stars": 3}
{"id": "bread", "content": "knead the dough and let it rise\nfor an hour", "stars": NaN}

{"content": "the ship leaves the harbour at noon"}
{"id": "tea", "content": "pour boiling water over the tea leaves", "file_path": "kitchen", "stars": 4}
END
run 0 ingest --dir data --field stars good.jsonl
printed out '^stored 3 records in 1 commits and .* skipped 0; repeated ids 1; generation [0-9]+$'
silent err
[[ -f data/faiss_index_chunks.index && -f data/faiss_index_chunks.index.meta.json ]] \
  || fail "the pair was not published"
run 0 get --dir data --json tea bread
printed out '"stars": 4'
printed out '"stars": NaN'
run 0 get --dir data --json chunk-"$(printf 'the ship leaves the harbour at noon' | md5sum | cut -c1-32)"

cat >bad.jsonl <<'END'
{"id": "one", "content": "first good record"}
{"id": "two"}
not json
{"id": "three", "content": "second good record"}
{"id": "four", "content": "!!!"}
END
run 1 ingest --dir bad bad.jsonl
printed out '^stored 2 records .* skipped 3; '
printed err '^callboard: skipped: bad.jsonl:2: .*content'
printed err '^callboard: skipped: bad.jsonl:3: '
printed err '^callboard: skipped: bad.jsonl:5: '
run 1 ingest --dir bad --json --quiet --commit-every 1 bad.jsonl
printed out '^\{"records": 2, "skipped": 3, "repeated": 0, "commits": 2, "seconds": [0-9.]+, "generation": [0-9]+\}$'
run 3 ingest --dir strict --strict bad.jsonl
printed err '^callboard: invalid_argument: bad.jsonl:2: '
printed out '^stored 0 records '
run 1 ingest --dir data no-such-file
printed err '^callboard: not_found: no-such-file cannot be read'
run 6 ingest --dir data empty
printed err '^callboard: io_failure: '
"$callboard" ingest --dir text --format text - <<<'from standard input' >out 2>err \
  || fail "standard input should be read"
printed out '^stored 1 records'

cat >packages <<'END'
Package: chess-game
Section: games
Description: plays chess
 Against you.
 .
 Or alone.

Package: pdf-tool
Description: converts pdf pages to images
END
run 0 ingest --dir packages-data --field Section packages
printed out '^stored 2 records'
run 0 get --dir packages-data chess-game
printed out '^chess-game$'
printed out '^  content: chess-game: plays chess$'
printed out '^    Or alone.$'
printed out '^  Section: games$'
CALLBOARD_DIR=packages-data run 0 query --top-k 1 convert a pdf to images
printed out '^  1  0\.[0-9]{4}  pdf-tool  pdf-tool: converts pdf pages to images$'

echo "== query, get, delete"
run 0 query --dir data --top-k 2 dough
printed out '^  1  0\.[0-9]{4}  bread  knead the dough and let it rise$'
[[ $(wc -l <out) -eq 1 ]] || fail "rows below the threshold should be left out"
run 0 query --dir data --top-k 2 --threshold -1 --json dough
printed out '^\{"__id__": "bread", .*"distance": 0\.[0-9]+, '
[[ $(wc -l <out) -eq 2 ]] || fail "there should be two rows"
run 0 query --dir data zebra
silent out
printed err 'nothing is similar enough'
run 1 get --dir data tea nothing
printed out '^tea$'
printed err '^callboard: not_found: there is no record "nothing"'
run 1 get --dir data --json nothing
printed out '^null$'
run 0 delete --dir data tea nothing
printed out '^generation [0-9]+$'
run 1 get --dir data tea
run 0 delete --dir data --json bread
printed out '^\{"generation": [0-9]+\}$'

echo "== entities and relations"
cat >relations.jsonl <<'END'
{"id": "rel-1", "src_id": "A", "tgt_id": "B", "content": "A knows B"}
{"id": "rel-2", "src_id": "B", "tgt_id": "C", "content": "B knows C"}
END
run 0 ingest --dir graph --namespace relationships relations.jsonl
run 0 delete --dir graph --namespace relationships --relations-of A
run 1 get --dir graph --namespace relationships rel-1
run 0 get --dir graph --namespace relationships rel-2
id=ent-$(printf Alice | md5sum | cut -c1-32)
printf '{"id": "%s", "entity_name": "Alice", "content": "Alice follows the rabbit"}\n' "$id" >entities.jsonl
run 0 ingest --dir graph --namespace entities entities.jsonl
run 0 delete --dir graph --namespace entities --entity Alice
run 1 get --dir graph --namespace entities "$id"

echo "== stats, verify, checkpoint"
run 0 stats --dir packages-data
printed out '^rows +2$'
printed out '^model +words:256$'
run 0 stats --dir packages-data --json
printed out '^\{"model": "words:256", "rows": 2, '
run 0 checkpoint --dir packages-data --compact
printed out '^checkpoint: 2 rows, generation [0-9]+$'
run 0 verify --dir packages-data
printed out '^ok: 2 rows, generation [0-9]+$'

echo "== the store's own embedder is found again"
run 0 ingest --dir small --embedder words:64 packages
run 0 query --dir small chess
printed out 'chess-game'
run 2 query --dir small --embedder words:128 chess
one_error_line dimension_mismatch
run 0 ingest --dir foreign --embedder 'command:cat' --dim 3 --quiet /dev/null
run 0 stats --dir foreign
run 2 query --dir foreign text
one_error_line invalid_argument
run 7 ingest --dir foreign --embedder 'command:false' --dim 3 packages
printed err '^callboard: embedding_failed: '
run 7 query --dir foreign --embedder 'command:false' --dim 3 text
one_error_line embedding_failed
run 0 ingest --dir named --embedder 'command:false' --dim 3 --model m1 /dev/null
run 2 query --dir named --embedder 'command:false' --dim 3 --model m2 text
one_error_line model_mismatch

echo "== train"
run 0 train --output table packages packages
printed out '^trained on 4 documents$'
run 0 ingest --dir trained --embedder words:64,idf=table packages
run 0 query --dir trained --embedder words:64,idf=table chess
printed out 'chess-game'
run 2 query --dir trained chess
one_error_line model_mismatch
run 2 query --dir trained --embedder words:64 chess
one_error_line model_mismatch
run 0 get --dir trained chess-game
run 1 train --output no/such/table packages

echo "== damage"
cp -a packages-data damaged
for meta in damaged/faiss_index_chunks.callboard/base-*.meta; do
  size=$(stat -c %s "$meta")
  # In place: the published pair is the same file.
  printf 'X' | dd of="$meta" bs=1 seek=$((size / 2)) conv=notrunc 2>dd.err
done
run 4 verify --dir damaged
printed err '^callboard: corrupt: '
silent out

echo "== a lock that somebody holds"
cat >with_lock.py <<'END'
import fcntl, struct, subprocess, sys
with open(sys.argv[1], "r+b") as file:
    fcntl.fcntl(file, fcntl.F_OFD_SETLK,
                struct.pack("hhqqi", fcntl.F_WRLCK, 0, 0, 0, 0))
    sys.exit(subprocess.call(sys.argv[2:]))
END
python3 with_lock.py packages-data/faiss_index_chunks.callboard/LOCK \
  "$callboard" ingest --dir packages-data --lock-timeout 0.1 packages >out 2>err
status=$?
[[ $status -eq 5 ]] || fail "a held lock should give status 5"
printed err '^callboard: busy: '

echo "== output that cannot be written"
if [[ -w /dev/full ]]; then
  "$callboard" query --dir packages-data chess >/dev/full 2>err
  status=$?
  [[ $status -eq 6 ]] || fail "a full disk should give status 6"
  printed err '^callboard: no_space: standard output '
fi
cat >to_closed_pipe.py <<'END'
import os, subprocess, sys
reader, writer = os.pipe()
os.close(reader)
sys.exit(subprocess.call(sys.argv[1:], stdout=writer))
END
python3 to_closed_pipe.py \
  "$callboard" query --dir packages-data chess >out 2>err
status=$?
[[ $status -eq 6 ]] || fail "a closed pipe should give status 6"
printed err '^callboard: io_failure: standard output '

echo "== messages"
cat >session <<'END'
{"op": "new", "dir": "session-data", "namespace": "chunks", "dim": 32, "batch": 2, "threshold": -1}
{"op": "upsert", "data": [["a", {"content": "red apple", "file_path": "\ud800", "tokens": 1}], ["b", {"content": "green apple"}, null]]}
{"op": "upsert", "data": {"c": {"content": "blue sky", "full_doc_id": NaN, "file_path": 123456789012345678901234567890}}}
{"op": "pending"}
{"op": "commit"}
{"op": "get_by_ids", "ids": ["c", "a", "x"]}
{"op": "query", "text": "sky", "top_k": 1}
[]

not json
{"op": "frobnicate"}
{"no": "op"}
{"op": "query", "text": "sky", "top_k": 0}
{"op": "query", "text": "sky", "top_k": true}
{"op": "query", "emb": [1, 2]}
{"op": "upsert", "data": [[1, {"content": "x"}]]}
{"op": "upsert", "data": [["x", "no object"]]}
{"op": "upsert", "data": [["x", {"content": "good"}], ["y", 3]]}
{"op": "delete", "ids": "a"}
{"op": "get_by_id", "id": 3}
{"op": "time", "t": 3}
{"op": "pending", "i": "B"}
{"op": "upsert", "data": [["bad", {"file_path": "no content"}], ["good", {"content": "fine"}]]}
{"op": "commit"}
{"op": "pending"}
{"op": "delete", "ids": ["bad", "a"]}
{"op": "commit", "expected_generation": 0}
{"op": "commit"}
{"op": "client_storage"}
{"op": "client_storage", "vectors": true}
{"op": "stats"}
{"op": "checkpoint", "compact": true}
{"op": "verify"}
{"op": "drop"}
{"op": "client_storage"}
{"op": "forget"}
{"op": "pending"}
END
"$callboard" messages <session >out 2>err
status=$?
[[ $status -eq 0 ]] || fail "a session should end with status 0"
[[ $(wc -l <out) -eq $(wc -l <session) ]] || fail "every line has one answer"
# answer <line of the session> <extended regular expression>
answer() {
  sed -n "${1}p" out | grep -qE -- "$2" \
    || fail "line $1: $(sed -n "${1}p" session): $(sed -n "${1}p" out): not $2"
}
for line in 1 2 3 26 32 33 36; do answer "$line" '^\{"r": null\}$'; done
answer 4 '^\{"r": \["a", "b", "c"\]\}$'
answer 5 '^\{"r": \{"generation": [0-9]+, "committed": 3, "discarded": 0\}\}$'
answer 6 '"full_doc_id": NaN, .*"file_path": 123456789012345678901234567890, .*"file_path": "\\ud800".*, null\]\}$'
answer 7 '^\{"r": \[\{"__id__": "c", '
for line in {8..22}; do answer "$line" '^\{"e": \{"code": "[a-z_]+", "message": ".+"\}\}$'; done
answer 15 dimension_mismatch
answer 24 '^\{"e": \{"code": "records_failed", .*"generation": [0-9]+, "failed": \[\{"id": "bad", '
answer 25 '^\{"r": \["bad"\]\}$'
answer 27 '"code": "conflict"'
answer 28 '^\{"r": \{"generation": '
answer 29 '"__id__": "good"'
answer 30 '"__vector__": \[-?[0-9]'
answer 31 '"rows": 3'
answer 34 '^\{"r": \{"status": "success", "message": "data dropped"\}\}$'
answer 35 '^\{"r": \{"data": \[\]\}\}$'
answer 37 '^\{"e": '

{
  printf '{"op": "pending", "x": "'
  head -c $((65 << 20)) /dev/zero | tr '\0' x
  printf '"}\n{"op": "time", "t": 4}\n'
} | "$callboard" messages --manual-clock >out 2>err
status=$?
answer 1 '^\{"e": \{"code": "too_large", '
answer 2 '^\{"r": null\}$'

echo "== watch"
printf '{"id": "first", "content": "one"}\n' >first.jsonl
run 0 ingest --dir watched first.jsonl
run 0 watch --dir watched --timeout 0
printed out '^generation [0-9]+: watching$'
[[ $(wc -l <out) -eq 1 ]] || fail "nothing was committed"
run 8 watch --dir watched --timeout 0 --events 1
printed err '^callboard: timed_out: of 1 events 0 came'
run 8 watch --dir watched --timeout 0 --events 1 --json
printed out '^\{"event": "start", "generation": [0-9]+\}$'
printed err '^\{"e": \{"code": "timed_out", "message": '

# watch_in_background <argument>...: returns when it watches. What it prints
# from then on comes from descriptor 4; its process is $pid.
watch_in_background() {
  rm -f told
  mkfifo told
  "$callboard" watch --dir watched "$@" >told 2>watch_err &
  pid=$!
  exec 4<told
  read -r line <&4
}

# watch_ended <status> <what should be>
watch_ended() {
  wait "$pid"
  status=$?
  cp watch_err err
  [[ $status -eq $1 ]] || fail "$2 should end with status $1"
}

watch_in_background --json --events 3
for id in second third; do
  printf '{"id": "%s", "content": "two"}\n' "$id" >more.jsonl
  run 0 ingest --dir watched --no-finalize more.jsonl
done
run 0 delete --dir watched first
cat <&4 >out
watch_ended 0 "a watch that has seen enough"
silent err
printed out '^\{"event": "commit", "generation": [0-9]+, "changed": \["second"\], "removed": \[\]\}$'
printed out '"changed": \["third"\], "removed": \[\]\}$'
printed out '"changed": \[\], "removed": \["first"\]\}$'
[[ $(wc -l <out) -eq 3 ]] || fail "there were three commits"

for signal in INT TERM; do
  watch_in_background
  run 0 ingest --dir watched --no-finalize first.jsonl
  read -r line <&4
  [[ $line =~ ^generation\ [0-9]+:\ changed\ 1,\ removed\ 0$ ]] \
    || fail "watch printed: $line"
  kill -"$signal" "$pid"
  watch_ended 0 "an interrupted watch"
done

watch_in_background
exec 4<&-
run 0 ingest --dir watched --no-finalize first.jsonl
watch_ended 6 "a watch that nobody reads"
printed err '^callboard: io_failure: standard output '

cat >session <<'END'
{"op": "new", "dir": "watch-data", "namespace": "chunks", "dim": 32}
{"op": "watch"}
{"op": "next_event", "watch": 1}
{"op": "upsert", "data": [["b", {"content": "red apple"}], ["a", {"content": "blue sky"}]]}
{"op": "commit"}
{"op": "next_event", "watch": 1, "timeout": 60}
{"op": "delete", "ids": ["a"]}
{"op": "commit"}
{"op": "next_event", "watch": 1, "timeout": 6e1}
{"op": "await_generation", "generation": 0}
{"op": "await_generation", "generation": 1000000, "timeout": 0.01}
{"op": "drop"}
{"op": "next_event", "watch": 1, "timeout": 60}
{"op": "next_event", "watch": 2}
{"op": "next_event", "watch": "1"}
{"op": "next_event"}
{"op": "next_event", "watch": 1, "timeout": -1}
{"op": "next_event", "watch": 1, "timeout": 601}
{"op": "next_event", "watch": 1, "timeout": "1"}
{"op": "await_generation"}
{"op": "await_generation", "generation": -1}
{"op": "await_generation", "generation": 1.5}
{"op": "watch", "i": "B"}
{"op": "unwatch", "watch": 1}
{"op": "unwatch", "watch": 1}
{"op": "watch"}
{"op": "unwatch", "watch": 2}
{"op": "new", "dir": "watch-data", "namespace": "chunks", "dim": 32}
{"op": "next_event", "watch": 2}
END
"$callboard" messages <session >out 2>err
status=$?
[[ $status -eq 0 ]] || fail "a session that watches should end with status 0"
answer 2 '^\{"r": \{"watch": 1, "generation": 0\}\}$'
for line in 3 24 27 28; do answer "$line" '^\{"r": null\}$'; done
answer 6 '^\{"r": \{"event": "commit", "generation": 1, "changed": \["b", "a"\], "removed": \[\]\}\}$'
answer 9 '^\{"r": \{"event": "commit", "generation": 2, "changed": \[\], "removed": \["a"\]\}\}$'
answer 10 '^\{"r": 2\}$'
answer 11 '^\{"e": \{"code": "timed_out", '
answer 13 '^\{"r": \{"event": "drop", "generation": [0-9]+, "changed": \[\], "removed": \[\]\}\}$'
for line in {14..23} 25 29; do answer "$line" '^\{"e": \{"code": "invalid_argument", '; done
answer 26 '^\{"r": \{"watch": 2, '

echo "== interruption"
mkfifo pipe
"$callboard" ingest --dir interrupted --format text --commit-every 1 - <pipe >out 2>err &
pid=$!
exec 3>pipe
printf 'first paragraph\n\nsecond paragraph\n\nthird' >&3
id=chunk-$(printf 'second paragraph' | md5sum | cut -c1-32)
until "$callboard" get --dir interrupted "$id" >/dev/null 2>&1; do
  kill -0 "$pid" || break
done
kill -INT "$pid"
wait "$pid"
status=$?
exec 3>&-
[[ $status -eq 130 ]] || fail "an interrupted ingest should end with status 130"
printed out '^stored 2 records '
printed err '^callboard: interrupted'

if [[ $failures -gt 0 ]]; then
  echo "$failures checks failed"
  exit 1
fi
echo "all checks passed"
