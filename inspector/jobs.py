"""Long work in a thread: it goes on while the page is used, shows how far it is, and can be stopped."""

from __future__ import annotations

import logging
import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeAlias, TypeVar, cast

import streamlit as st

from m3retriever import M3RetrieverError
from m3retriever.inspector import markup, state
from m3retriever.inspector.i18n import Translate

logger = logging.getLogger(__name__)

Result = TypeVar("Result")
Step: TypeAlias = Callable[[int], None]
Work: TypeAlias = Callable[[Step], Result]

PATIENCE = 1.5  # seconds that a page waits for work to end before it shows how far it is
EVERY = 0.5  # seconds from one look to the next
KEPT = 16  # ended jobs whose results are kept: some are large


class Stopped(Exception):  # noqa: N818  # no error: somebody pressed the button
    """Raised inside work that is to end."""


class Job(Generic[Result]):
    """Work under way, or ended.

    Parameters
    ----------
    work
        Gets a function to be called with the number of steps done since the last call, which ends the work by
        raising when it is to stop.
    total
        The number of steps; 0 where nobody knows.
    """

    def __init__(self, work: Work[Result], total: int = 0) -> None:
        self.total, self.done = total, 0
        self.waiting: set[str] = set()  # sessions, of jobs that go with a session's settings
        self.error: Exception | None = None
        self._result: Result | None = None
        self._stop, self._ended = threading.Event(), threading.Event()
        threading.Thread(target=self._run, args=(work,), daemon=True, name="m3-job").start()

    def _run(self, work: Work[Result]) -> None:
        try:
            self._result = work(self._step)
        except Exception as error:  # noqa: BLE001  # shown by whoever asks for the result
            self.error = error
        finally:
            self._ended.set()

    def _step(self, count: int) -> None:
        self.done += count
        if self._stop.is_set():
            raise Stopped

    @property
    def ended(self) -> bool:
        """Whether there is a result, or an error."""
        return self._ended.is_set()

    @property
    def stopped(self) -> bool:
        """Whether it ended because it was asked to."""
        return isinstance(self.error, Stopped)

    def stop(self) -> None:
        """Ask it to end at its next step."""
        self._stop.set()

    def wait(self, seconds: float) -> bool:
        """Whether it has ended, after at most so long."""
        return self._ended.wait(seconds)

    def result(self) -> Result:
        """What the work gave, of one that has ended; its error is raised."""
        if self.error is not None:
            raise self.error
        return cast(Result, self._result)


class Jobs:
    """The jobs of this process by key: who asks for the same again gets the same."""

    def __init__(self) -> None:
        self._held: OrderedDict[Hashable, Job[Any]] = OrderedDict()
        self._lock = threading.Lock()

    def started(self, key: Hashable, work: Work[Result], total: int) -> Job[Result]:
        """The job of this key, begun now where there is none."""
        with self._lock:
            job = self._held.get(key)
            if job is None:
                job = self._held[key] = Job(work, total)
            self._held.move_to_end(key)
            for old in [one for one, held in self._held.items() if held.ended][: max(0, len(self._held) - KEPT)]:
                del self._held[old]
            return job

    def leave(self, key: Hashable, session: str) -> None:
        """Stop a job that this session waited for, unless another one waits for it too."""
        with self._lock:
            job = self._held.get(key)
            if job is None or job.ended:
                return
            job.waiting.discard(session)
            if not job.waiting:
                job.stop()
                del self._held[key]

    def holds(self, key: Hashable) -> bool:
        """Whether the job of this key was begun."""
        with self._lock:
            return key in self._held

    def forget(self, key: Hashable) -> None:
        """Let the job of this key be begun again."""
        with self._lock:
            self._held.pop(key, None)


@st.cache_resource(show_spinner=False)
def jobs() -> Jobs:
    """The jobs of this process."""
    return Jobs()


def run(name: str, key: Hashable, work: Work[Result], *, total: int, t: Translate, slot: str | None = None) -> Result | None:
    """The result of work, or None while it goes on, with its progress and a button on the page.

    Parameters
    ----------
    name
        What is done, in the user's words.
    key
        Two calls with the same key are the same work: everything that the result depends on.
    slot
        Where this session needs one result only, such as that of its sliders: what it waited for there before is
        stopped, unless another session waits for it.

    Raises
    ------
    M3RetrieverError
        What the work raised; another error is said on the page, and logged.
    """
    session = state.session()
    if slot is not None and (old := state.fill_slot(slot, key)) is not None:
        jobs().leave(old, session)
    job = jobs().started(key, work, total)
    job.waiting.add(session)
    if job.wait(PATIENCE) and job.error is None:
        return job.result()
    if job.ended and not job.stopped:
        jobs().forget(key)  # whoever comes next tries again
        if isinstance(job.error, M3RetrieverError):
            raise job.error
        markup.show(markup.notice("error", t("job.failed", name=name), f"{type(job.error).__name__}: {job.error}"))
        logger.error("%s failed", name, exc_info=job.error)
    elif job.ended:
        markup.show(markup.notice("info", t("job.stopped", name=name, done=job.done, total=job.total)))
        st.button(t("job.again"), key=f"again_{hash(key)}", on_click=jobs().forget, args=(key,))
    else:
        _progress(name, job, f"stop_{hash(key)}", t)
    return None


@st.fragment(run_every=EVERY)
def _progress(name: str, job: Job[Any], key: str, t: Translate) -> None:
    if job.ended:
        st.rerun()
    share = min(job.done / job.total, 1.0) if job.total else 0.0
    st.progress(share, text=t("job.progress", done=job.done, total=job.total) if job.total else " ")
    markup.show(markup.note(name, name="job"))
    st.button(t("job.stop"), key=key, on_click=job.stop)
