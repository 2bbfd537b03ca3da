"""A flipped bit in any file of an index is never a wrong answer: thousands of them."""

import os

import pytest

from torture.counts import count
from torture.flips import FILES, tally

ROUNDS = int(300 * float(os.environ.get("M3_TORTURE_ROUNDS", "1")))


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_is_the_same_answer_or_an_error(name):
    rounds = ROUNDS if name in FILES[:2] else ROUNDS // 10
    count(f"flipped bits, {name}", flips=rounds, wrong=0, **tally(name, rounds))
