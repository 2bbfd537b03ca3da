"""The long form: drawn tenants, filters and questions; moves by every client; races. Counts go into the report."""

import os
import random

from hypothesis import HealthCheck, given, settings

from torture.counts import count
from torture.isolation import Case, cases, check
from torture.moves import check_moves, check_race

ROUNDS = float(os.environ.get("M3_TORTURE_ROUNDS", "1"))
CASES = int(300 * ROUNDS)  # of documents, a filter and every way to ask
MOVES = int(40 * ROUNDS)  # by each client
RACES = int(400 * ROUNDS)  # moves under four threads that search

done = {"cases": 0, "answers": 0}


@settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck), database=None)
@given(cases())
def hold(case: Case) -> None:
    done["answers"] += check(case)
    done["cases"] += 1


def test_nothing_outside_a_filter_is_shown_or_told():
    hold()
    count("filters as isolation", **done)


def test_a_document_that_moves_to_another_tenant_is_gone_at_once_whoever_moves_it(tmp_path):
    looks = 0
    for by in ("index", "another store", "chroma"):
        order = [random.Random(by).randrange(6) for _ in range(MOVES)]
        looks += check_moves(tmp_path / by, order, by=by)
    count("moves between tenants", moves=3 * MOVES, looks=looks, failed=0)


def test_no_search_begun_after_a_move_shows_the_document(tmp_path):
    searches = check_race(tmp_path, RACES)
    count("moves under searching threads", moves=RACES, searches=searches, failed=0)
