"""Long work: begun once, followed, stopped, and its errors handed on."""

import threading

import pytest

from m3retriever import StoreError
from m3retriever.inspector.jobs import Job, Jobs, Stopped


def test_a_job_counts_its_steps_and_gives_its_result():
    def work(step):
        step(2)
        step(3)
        return "done"

    job = Job(work, total=5)
    assert job.wait(5)
    assert (job.done, job.total, job.result(), job.stopped) == (5, 5, "done", False)


def test_a_stopped_job_ends_at_its_next_step_and_keeps_what_it_had_done():
    going, goes_on, kept = threading.Event(), threading.Event(), []

    def work(step):
        for number in range(10):
            going.set()
            goes_on.wait(5)
            kept.append(number)
            step(1)

    job = Job(work, total=10)
    assert going.wait(5)
    assert not job.wait(0)
    job.stop()
    goes_on.set()
    assert job.wait(5)
    assert job.stopped
    assert kept == [0]
    with pytest.raises(Stopped):
        job.result()


def test_an_error_is_raised_by_who_asks_and_the_next_asks_again():
    calls = []

    def work(step):
        calls.append(1)
        raise StoreError("gone")

    held = Jobs()
    for _ in range(2):
        job = held.started("key", work, 0)
        assert job.wait(5)
        with pytest.raises(StoreError, match="gone"):
            job.result()
    assert len(calls) == 2


def test_the_same_key_is_the_same_job_until_it_is_forgotten():
    calls = []
    held = Jobs()

    def started(key):
        job = held.started(key, lambda step: calls.append(key), 0)
        assert job.wait(5)
        return job

    first = started("a")
    assert started("a") is first
    started("b")
    held.forget("a")
    assert started("a") is not first
    assert calls == ["a", "b", "a"]


def test_a_stopped_job_stays_stopped_until_it_is_forgotten():
    held, goes_on = Jobs(), threading.Event()

    def work(step):
        goes_on.wait(5)
        step(1)

    job = held.started("a", work, 1)
    job.stop()
    goes_on.set()
    assert job.wait(5)
    assert held.started("a", work, 1) is job


def test_only_the_latest_results_are_kept():
    held = Jobs()
    jobs = []
    for number in range(60):
        jobs.append(held.started(number, lambda step: None, 0))
        jobs[-1].wait(5)
    assert held.started(59, lambda step: None, 0) is jobs[59]
    assert held.started(0, lambda step: None, 0) is not jobs[0]
