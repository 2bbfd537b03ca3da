"""Long work: begun once, followed, stopped, and its errors handed on."""

import threading
import time

import pytest
from streamlit.testing.v1 import AppTest

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


def test_an_error_is_raised_by_who_asks_until_it_is_forgotten():
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
    assert len(calls) == 1
    held.forget("key")
    assert held.started("key", work, 0).wait(5)
    assert len(calls) == 2


SLOW = """
import time
import streamlit as st
from m3retriever import StoreError
from m3retriever.inspector import jobs
from m3retriever.inspector.i18n import translator

jobs.PATIENCE = 0.05

def work(step):
    time.sleep(0.4)
    raise {error}

try:
    jobs.run("Slow work", "key", work, total=0, t=translator("en"))
except StoreError as error:
    st.text(f"said: {{error}}")
"""


@pytest.mark.parametrize(
    ("error", "said"), [("StoreError('gone')", "said: gone"), ("MemoryError('full')", "MemoryError: full")]
)
def test_an_error_of_work_that_outlasts_the_page_s_patience_is_said_once_it_ends(error, said):
    app = AppTest.from_string(SLOW.format(error=error), default_timeout=20).run()
    assert "Slow work" in "".join(one.value for one in app.html)
    time.sleep(0.6)
    app.run()
    assert said in "".join(one.value for one in (*app.html, *app.text))
    assert not app.exception


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


def test_work_that_nobody_waits_for_any_more_is_stopped():
    held, goes_on = Jobs(), threading.Event()

    def work(step):
        goes_on.wait(5)
        step(1)

    job = held.started("a", work, 1)
    job.waiting |= {"one", "another"}
    held.leave("a", "one")
    assert held.holds("a"), "another session waits"
    held.leave("a", "another")
    assert not held.holds("a")
    goes_on.set()
    assert job.wait(5)
    assert job.stopped


def test_only_the_latest_results_are_kept():
    held = Jobs()
    jobs = []
    for number in range(60):
        jobs.append(held.started(number, lambda step: None, 0))
        jobs[-1].wait(5)
    assert held.started(59, lambda step: None, 0) is jobs[59]
    assert held.started(0, lambda step: None, 0) is not jobs[0]
