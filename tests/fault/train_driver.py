"""Trains in this process until it is killed: ``python -m tests.fault.train_driver URL NOTE DIE_AT``."""

from __future__ import annotations

import sys

from gristmill.cluster.inprocess import InProcessRunner
from tests.fault.train_loops import walking

if __name__ == "__main__":
    url, note, die_at = sys.argv[1:]
    InProcessRunner().train([(walking("walk", note=note, die_at=int(die_at)), url)])
