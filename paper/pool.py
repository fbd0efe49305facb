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
        self.lock, self.stopped = threading.Lock(), threading.Event()
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
                for i, old in enumerate(self.states):
                    if not old.left or i in self.tried or old.running():
                        continue
                    if lock := old.claim():
                        state = self.states[i] = State(old.row, self.args.data_dir, self.args.results)
                        if not state.left:  # another process has finished it meanwhile
                            lock.close()
                            continue
                        self.tried.add(i)
                        break
                else:
                    return
            with lock:
                self.train(state, lock)

    def train(self, state: State, lock: IO[str]) -> None:
        """Run the row's commands, their output to run_all.log in its folder."""
        name, began, status = state.row.experiment + state.row.suffix, time.monotonic(), 0
        environment = {key: value for key, value in os.environ.items() if key not in itertools.chain(*LAUNCHERS)}
        log_path = state.log
        with open(log_path, "a") as log:
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
            del self.children[name]
            for k, old in enumerate(self.states):  # others may work on them, too
                self.states[k] = State(old.row, self.args.data_dir, self.args.results) if old.left else old
            if self.stopped.is_set():
                self.say(f"stopped {name}")
            elif status or any(now.left for now in self.states if now.row is state.row):
                self.failed[name] = log_path
                self.say(f"FAILED {name}, status {status}: {log_path}")
            else:
                self.say(f"done {name} in {clock(time.monotonic() - began)}")

    def stop(self, signum: int, frame: object) -> None:
        """Every program saves and ends; no row is started any more."""
        self.stopped.set()
        for child in list(self.children.values()):
            child.terminate()

    def run(self) -> int:
        before = {signum: signal.signal(signum, self.stop) for signum in SIGNALS}
        threads = [threading.Thread(target=self.work) for _ in range(self.args.jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        for signum, handler in before.items():
            signal.signal(signum, handler)
        for name, log in self.failed.items():
            say(f"run_all: {name} failed: {log}", sys.stderr)
        if self.stopped.is_set():
            say("run_all: stopped; everything is saved: rerun the same command to resume", sys.stderr)
            return 130
        return 1 if self.failed else 0
