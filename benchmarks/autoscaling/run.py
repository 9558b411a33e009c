"""Does the work on several cores, the longest jobs first, and keeps every result."""

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from contextlib import contextmanager
from multiprocessing.connection import wait as wait_for
from types import FrameType

from rich.console import Console

from benchmarks.autoscaling.agenda import Request, Results, curve_job, expand
from benchmarks.autoscaling.estimate import seconds_of
from benchmarks.autoscaling.jobs import Job, Result, work
from benchmarks.autoscaling.progress import Display, in_words
from benchmarks.autoscaling.store import Store


def execute(request: Request, store: Store, console: Console, workers: int) -> Results:
    """Do what is missing, and return everything.

    Raises WorkMissingError where a run did not do its work; KeyboardInterrupt, also on SIGTERM, once no process works
    any more.
    """
    began = time.monotonic()
    execution = _Execution(request, store)
    execution.recall()
    expected = execution.expected()
    console.print(
        f"{len(execution.results.done)} results are there already. The others take about "
        f"{in_words(expected / workers)} on {workers} cores.",
        soft_wrap=True,
    )
    with Display(console, workers) as display, _workers(workers) as pools:
        execution.work(pools, display)
    execution.results.seconds = time.monotonic() - began
    return execution.results


class _Execution:
    def __init__(self, request: Request, store: Store) -> None:
        self._request, self._store = request, store
        self.results = Results()
        self._estimates: dict[Job, float] = {}
        self._done = self._taken = 0.0

    def recall(self) -> None:
        """Read the results that were kept; each may open up further jobs."""
        while True:
            before = len(self.results.done)
            for job in self._missing():
                kept = self._store.load(job, self._request.case(job.case), self._curve(job))
                if kept is not None:
                    self.results.done[job] = kept
            if len(self.results.done) == before:
                return

    def expected(self) -> float:
        """Return the processor seconds that all jobs take that are not done: an estimate."""
        jobs = set(expand(self._request, self.results, foresee=True)) - set(self.results.done)
        return sum(self._estimate(job) for job in jobs)

    def work(self, pools: Sequence[ProcessPoolExecutor], display: Display) -> None:
        """Keep every worker busy until nothing is left."""
        last: list[Job | None] = [None] * len(pools)
        running: dict[Future[Result], tuple[Job, int]] = {}
        while True:
            idle = set(range(len(pools))) - {place for _, place in running.values()}
            waiting = set(self._missing()) - {job for job, _ in running.values()}
            for place in sorted(idle):
                if waiting:
                    job = last[place] = choose(waiting, last[place], self._estimate)
                    waiting.remove(job)
                    case = self._request.case(job.case)
                    running[pools[place].submit(work, job, case, self._curve(job))] = job, place
            if not running:
                return
            finished, _ = wait(running, timeout=1.0, return_when=FIRST_COMPLETED)
            for future in finished:
                self._take(running.pop(future)[0], future)
            note = f"({len(self.results.done)} results; now {', '.join(_name(job) for job, _ in running.values())})"
            display.show(self._done + self.expected(), self._done, self._taken, note)

    def _take(self, job: Job, future: Future[Result]) -> None:
        result = future.result()
        self._store.keep(job, self._request.case(job.case), self._curve(job), result)
        self.results.done[job] = result
        self.results.worked += 1
        self._done += self._estimate(job)
        self._taken += result["seconds"]

    def _missing(self) -> list[Job]:
        return [job for job in expand(self._request, self.results) if job not in self.results.done]

    def _curve(self, job: Job) -> Result | None:
        if job.kind not in ("plan", "tune", "days"):
            return None
        return self.results.done[curve_job(self._request.case(job.case), self._request.cases)]

    def _estimate(self, job: Job) -> float:
        if job not in self._estimates:
            self._estimates[job] = seconds_of(job, self._request.case(job.case))
        return self._estimates[job]


def choose(waiting: Collection[Job], last: Job | None, estimate: Callable[[Job], float]) -> Job:
    """Return what a worker does next: curves, which others wait for, then what is at hand, then the longest.

    At hand are the requests that it played last: making them takes about as long as playing them.
    """

    def merit(job: Job) -> tuple[bool, bool, float, str]:
        at_hand = last is not None and job.part != "" and job.requests == last.requests
        return job.kind == "curve", at_hand, estimate(job), str(job)

    return max(waiting, key=merit)


def _name(job: Job) -> str:
    return " ".join(text for text in (job.kind, job.case, job.part, job.policy) if text)


@contextmanager
def _workers(count: int) -> Iterator[list[ProcessPoolExecutor]]:
    """Start processes with a queue each, so that each can get what fits it; end them whatever happens."""
    context = multiprocessing.get_context("spawn")
    before = signal.signal(signal.SIGTERM, _interrupt)
    pools = [ProcessPoolExecutor(1, mp_context=context, initializer=_begin_worker) for _ in range(count)]
    try:
        yield pools
    except BaseException:
        for process in multiprocessing.active_children():
            process.terminate()
        raise
    finally:
        for pool in pools:
            pool.shutdown(wait=True, cancel_futures=True)
        signal.signal(signal.SIGTERM, before)


def _interrupt(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _begin_worker() -> None:
    """Leave Ctrl-C to the main process, and end with it, even if it was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:

        def watch() -> None:
            wait_for([parent.sentinel])
            os._exit(1)

        threading.Thread(target=watch, daemon=True).start()
