#!/bin/sh
# What callboard_simulation does with a broken promise: it says so, reduces the
# schedule, and the command that it prints breaks the same promise again.
# Usage: false_promise.sh PROGRAM
set -u
program=$1
promise="broken promise: nobody is killed"

fail() {
  echo "$1" >&2
  exit 1
}

found=$("$program" --seeds 100 --false-promise)
[ $? -eq 1 ] || fail "a broken promise is not exit status 1"
echo "$found"
echo "$found" | grep -q "^$promise" || fail "the promise is not told"
lively=$(echo "$found" | sed -n 's/^reduced to \([0-9]*\) draws.*/\1/p')
[ -n "$lively" ] && [ "$lively" -le 20 ] || fail "it was not reduced"
schedule=$(echo "$found" |
  sed -n 's/^replay: callboard_simulation --seed \(.*\) --false-promise$/\1/p')
again=$("$program" --seed "$schedule" --false-promise --no-reduce)
[ $? -eq 1 ] || fail "the printed schedule does not break the promise again"
echo "$again" | grep -q "^$promise" || fail "it breaks another promise"
"$program" --seed "$schedule" | grep -q "^every promise was kept" ||
  fail "without the false promise something else is broken"
"$program" --seed "17:events=9-3" 2>/dev/null
[ $? -eq 2 ] || fail "what is no schedule is not exit status 2"
