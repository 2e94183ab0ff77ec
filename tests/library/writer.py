"""A program that starts writers, each a process of its own, as the tests order.

Every line of standard input is an order in JSON; the answer is a line with the processes' exit codes. With ``kill``, the
writer dies by SIGKILL right before its n-th change of the file system (a fork is quick; a fresh Python is not); with
``moves``, only moves are counted.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from typing import Any

import torch
from small import make_entry, make_prefix

from xdner.library.store import Library

CHANGES = {"os.mkdir", "os.rename", "os.remove", "os.rmdir", "os.truncate", "os.link"}


def act(order: dict[str, Any]) -> None:
    library = Library(order["library"])
    what = order["do"]
    if what == "add":
        library.add(make_entry(order["name"], order["seed"], members=order["members"]))
    elif what == "remove":
        library.remove(order["name"])
    elif what == "import":
        library.import_(order["file"], replace=True)
    elif what == "initial":
        library.set_initial(make_prefix(order["seed"]))
    elif what == "race":
        who = order["name"]
        for number in range(order["rounds"]):
            while number == order["rounds"] // 2 and not os.path.exists(order["seen"]):
                time.sleep(0.01)  # until the reader has seen something of the first half
            library.add(make_entry("shared", number + order["seed"], members=1 + number % 3))
            library.add(make_entry(f"{who}-{number}", number))
            if number % 3 == 0:
                library.remove(f"{who}-{number}")


def die_before_change(number: int, moves: bool) -> None:
    """Arm the trap; it cannot be disarmed, and need not be."""
    left = [number]

    def hook(event: str, args: tuple[Any, ...]) -> None:
        writes = event == "open" and isinstance(args[2], int) and bool(args[2] & (os.O_WRONLY | os.O_RDWR))
        if event == "os.rename" or (not moves and (event in CHANGES or writes)):
            left[0] -= 1
            if left[0] == 0:
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(hook)


def start(order: dict[str, Any]) -> int:
    process = os.fork()
    if process == 0:
        code = 1
        try:
            if order.get("kill"):
                die_before_change(order["kill"], order.get("moves", False))
            act(order)
            code = 0
        finally:
            os._exit(code)
    return process


def main() -> None:
    torch.set_num_threads(1)
    for line in sys.stdin:
        processes = [start(order) for order in json.loads(line)]
        codes = [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]
        print(json.dumps(codes), flush=True)


if __name__ == "__main__":
    main()
