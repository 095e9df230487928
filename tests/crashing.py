"""A process that forks one child a line of its input, each of which runs a deep loop and may kill itself on the way.

Importing JAX takes longer than the loop: the children of one process that has imported it, and started nothing, share that.
"""

import os
import signal
import sys
import warnings

import learners

from mcloop import train

GENERATIONS = 6


def work(folder):
    return train(learners.hosted_maker(), {"arm": ["replace", "accumulate"]}, 1, GENERATIONS, folder=folder)


def armed(operations):
    """SIGKILL at the so-manieth time that something is sent to the disk or renamed."""
    left = [operations]

    def wrap(function):
        def wrapped(*args, **kwargs):
            left[0] -= 1
            if left[0] <= 0:
                os.kill(os.getpid(), signal.SIGKILL)
            return function(*args, **kwargs)

        return wrapped

    for name in ("fsync", "replace", "rename", "mkdir"):
        setattr(os, name, wrap(getattr(os, name)))


if __name__ == "__main__":
    for line in sys.stdin:
        folder, operations = line.rstrip("\n").split("\t")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            child = os.fork()
        if child == 0:
            warnings.simplefilter("ignore")
            if operations:
                armed(int(operations))
            work(folder)
            os._exit(0)
        print(child, flush=True)
        print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
