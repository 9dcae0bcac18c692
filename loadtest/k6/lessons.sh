#!/usr/bin/env bash
# Writes the lessons of classroom.js as the two files that `rollcall load` reads.
# usage: lessons.sh DIR ROOMS
set -euo pipefail
dir=$1 rooms=$2 size=20
echo 'lesson_id,classroom_id,seats' >"$dir/lessons.csv"
echo 'lesson_id,user_id,seat' >"$dir/attendees.csv"
for ((room = 0; room < rooms; room++)); do
    printf 'k6-%d,00000000-0000-4000-8000-%012d,%d\n' "$room" "$room" "$size" >>"$dir/lessons.csv"
    for ((slot = 0; slot < size; slot++)); do
        printf 'k6-%d,k6-%d-%d,%d\n' "$room" "$room" "$slot" $((slot + 1)) >>"$dir/attendees.csv"
    done
done
