"""The long form: disks that are full at many moments, and files cut at many lengths."""

import random
from collections import Counter
from pathlib import Path

import pytest

from torture.counts import count
from torture.crashes import ROUNDS, Place, answer, prepare
from torture.disk import copied, cut_somewhere, fill, looked_at, make, may_mount, reopened, small_disk

DISKS = max(1, ROUNDS // 8)


@pytest.mark.parametrize("how", ["disk", "limit"])
def test_a_disk_that_fills_up_at_any_moment_costs_nothing(tmp_path, how):
    if how == "disk" and not may_mount():
        pytest.skip("only root may mount a file system")
    chosen, wrong = random.Random(5), []
    for number in range(DISKS):
        kilobytes, folder = chosen.randrange(320, 3000), tmp_path / str(number)
        if how == "disk":
            with small_disk(folder, 2 * kilobytes + 1000):
                filled = answer(fill, folder, how, kilobytes)
                wrong += filled["wrong"] + answer(reopened, folder, filled["held"])
        else:
            folder.mkdir()
            filled = answer(fill, folder, how, kilobytes)
            wrong += filled["wrong"] + answer(reopened, folder, filled["held"])
    count(f"no room: {how}", disks=DISKS, problems=len(wrong))
    assert wrong == []


def test_a_file_that_was_cut_anywhere_is_refused_or_made_good(tmp_path):
    place, chosen, came_to, wrong = Place(tmp_path / "whole", Path("no log")), random.Random(6), Counter(), []
    answer(prepare, place)
    answer(make, place)
    for _ in range(ROUNDS):
        folder = copied(place.folder, tmp_path / "index")
        where = cut_somewhere(folder, chosen)
        said = answer(looked_at, folder)
        kind = said.split(":")[0]
        came_to[kind] += 1
        if kind not in ("right", "refused") or (kind == "refused" and str(folder) not in said):
            wrong.append(f"{where}: {said}")
    count("files cut short", cuts=ROUNDS, answered=came_to["right"], refused=came_to["refused"], problems=len(wrong))
    assert wrong == []
