"""The long form: processes and servers killed at 400 random moments."""

from torture.counts import count
from torture.crashes import ROUNDS, kill_embedded, kill_served


def test_embedded_nothing_acknowledged_is_lost_at_any_moment(tmp_path):
    survived = kill_embedded(tmp_path, ROUNDS)
    count(
        "kill -9, embedded",
        kills=survived.kills,
        within_a_change=survived.cut_short,
        changes=survived.changes,
        problems=len(survived.problems),
    )
    assert survived.problems == []
    assert survived.cut_short > ROUNDS / 2


def test_with_a_server_nothing_acknowledged_is_lost_at_any_moment(tmp_path):
    survived = kill_served(tmp_path, ROUNDS)
    count(
        "kill -9, with a server",
        kills=survived.kills,
        servers_mended=survived.servers_mended,
        within_a_change=survived.cut_short,
        changes=survived.changes,
        problems=len(survived.problems),
    )
    assert survived.problems == []
    assert survived.cut_short > ROUNDS / 2
