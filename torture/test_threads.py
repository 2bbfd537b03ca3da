"""The long form: 64 threads with 1000 operations each."""

import os

from torture.counts import count
from torture.threads import run

THREADS = 64
OPERATIONS = round(1000 * float(os.environ.get("M3_TORTURE_ROUNDS", "1")))


def test_many_threads_get_to_the_last_bit_what_one_gets(tmp_path):
    work = run(tmp_path, THREADS, OPERATIONS)
    count("threads", threads=THREADS, queries=work.queries, adds=work.adds, deletes=work.deletes, problems=len(work.problems))
    assert work.problems == []
