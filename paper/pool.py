"""Workers that train the rows of the table side by side."""

import argparse
import itertools
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO

from common.console import say
from common.ranks import LAUNCHERS
from paper.runs import ROOT
from paper.state import State, clock, remaining

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Pool:
    """Workers that take the next row nobody has claimed, until none is left."""

    def __init__(self, args: argparse.Namespace, states: list[State], rank: int, workers: int):
        self.args, self.states, self.rank, self.workers = args, states, rank, workers
        self.lock, self.stopped = threading.RLock(), threading.Event()  # a second signal may come while one is served
        self.tried: set[int] = set()
        self.children: dict[str, subprocess.Popen] = {}
        self.failed: dict[str, Path] = {}  # with their logs

    def say(self, text: str) -> None:
        done = sum(not state.left for state in self.states)
        left = len(self.states) - done - len(self.children)
        where = f"[rank {self.rank}] " if self.rank or self.workers > self.args.jobs else ""
        say(f"{where}{text}   [{done} done, {len(self.children)} running, {left} left, "
              f"about {clock(remaining(self.states, self.workers))}]")  # fmt: skip

    def work(self) -> None:
        while not self.stopped.is_set():
            with self.lock:
                taken = self.take()
            if taken is None:
                return
            state, lock = taken
            with lock:
                try:
                    self.train(state, lock)
                except OSError as error:  # no such launcher, or a disk that cannot be written to
                    self.fail(state, str(error))

    def take(self) -> tuple[State, IO[str]] | None:
        """Claim the next row; None where there is none."""
        for i, old in enumerate(self.states):
            if not old.left or i in self.tried or old.running():
                continue
            try:
                lock = old.claim()
            except OSError as error:
                self.tried.add(i)
                self.fail(old, str(error))
                continue
            if lock:
                state = self.states[i] = State(old.row, self.args.data_dir, self.args.results)
                if state.left:
                    self.tried.add(i)
                    return state, lock
                lock.close()  # another process has finished it meanwhile
        return None

    def fail(self, state: State, why: str) -> None:
        with self.lock:
            name = state.row.name
            self.failed[name] = state.log
            self.children.pop(name, None)
            self.say(f"FAILED {name}, {why}: {state.log}")

    def train(self, state: State, lock: IO[str]) -> None:
        """Run the row's commands, their output to run_all.log in its folder."""
        name, began, status = state.row.name, time.monotonic(), 0
        environment = {key: value for key, value in os.environ.items() if key not in itertools.chain(*LAUNCHERS)}
        with open(state.log, "a") as log:
            for command in state.commands(shlex.split(self.args.launcher), self.args.threads):
                log.write(f"$ {shlex.join(command)}\n")
                log.flush()
                with self.lock:
                    if self.stopped.is_set():
                        return
                    child = subprocess.Popen(
                        command,
                        cwd=ROOT,
                        env=environment,
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        start_new_session=True,  # a terminal's Ctrl-C comes here alone, and is passed on once
                        pass_fds=[lock.fileno()],  # should this process be killed, the row stays claimed
                    )
                    first = name not in self.children
                    self.children[name] = child
                    if first:
                        self.say(f"start {name}")
                status = child.wait()
                if status:
                    break
        with self.lock:
            self.children.pop(name)
            for k, old in enumerate(self.states):  # others may work on them, too
                self.states[k] = State(old.row, self.args.data_dir, self.args.results) if old.left else old
            if self.stopped.is_set():
                self.say(f"stopped {name}")
            elif status or any(now.left for now in self.states if now.row is state.row):
                self.fail(state, f"status {status}")
            else:
                self.say(f"done {name} in {clock(time.monotonic() - began)}")

    def stop(self, signum: int, frame: object) -> None:
        """Every program saves and ends; no row is started any more."""
        self.stopped.set()
        with self.lock:  # a program that is being started is among them then
            for child in self.children.values():
                child.terminate()

    def run(self) -> int:
        before = {signum: signal.signal(signum, self.stop) for signum in SIGNALS}
        with ThreadPoolExecutor(self.args.jobs) as threads:
            ends = [threads.submit(self.work) for _ in range(self.args.jobs)]
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for name, log in self.failed.items():
            say(f"run_all: {name} failed: {log}", sys.stderr)
        for end in ends:
            end.result()  # raises what ended a worker
        if self.stopped.is_set():
            say("run_all: stopped; everything is saved: rerun the same command to resume", sys.stderr)
            return 130
        return 1 if self.failed else 0
