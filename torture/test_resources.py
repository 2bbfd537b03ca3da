"""The long form of tests/test_resources.py: interruptions, batches without memory, and a corpus larger than what it takes."""

import os

import pytest

from torture import resources
from torture.counts import count

SCALE = float(os.environ.get("M3_TORTURE_ROUNDS", "1"))
INTERRUPTIONS, SEEDS = round(250 * SCALE), 4
STEPS = round(60 * SCALE)
DOCUMENTS, CHARACTERS = round(4_500 * max(1, SCALE)), 40_000  # 180 MB; the process takes about 110 MB before the first of them
FIRST = 3  # of so many parts: after some hundred documents Chroma's buffers are full
SHARE = 0.2  # of what is indexed beyond that, at most, may be held: vectors in Chroma's index, and ids


@pytest.mark.parametrize("seed", range(SEEDS))
def test_interruptions_at_any_moment_leave_the_index_as_if_undisturbed(tmp_path, seed):
    counts = resources.run("interrupts", tmp_path / "index", INTERRUPTIONS, seed, timeout=3_600)
    count(f"interruptions, seed {seed}", **counts)
    assert counts["wrong"] == 0


def test_no_batch_gets_the_vectors_of_another_where_memory_runs_out(tmp_path):
    pytest.importorskip("openvino")
    counts = resources.run("starve", tmp_path, STEPS, timeout=3_600)
    count("batches without memory", **counts)
    assert counts.get("wrong", 0) == 0


def test_memory_does_not_grow_with_what_is_indexed():
    small, large = (
        resources.run("indexing", documents, CHARACTERS, timeout=3_600) for documents in (DOCUMENTS // FIRST, DOCUMENTS)
    )
    grown, further = large["peak"] - small["peak"], large["bytes"] - small["bytes"]
    count("memory while indexing", documents=DOCUMENTS, bytes=large["bytes"], peak_of_a_third=small["peak"], peak=large["peak"])
    assert grown < SHARE * further
