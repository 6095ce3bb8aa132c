"""What all benchmarks of this folder are told on the command line, and what
they do alike before and after: install, make a folder, end cleanly.
"""

import argparse
import pathlib
import shutil
import signal
import sys
import tempfile

import load
import machine
import minting


def bounded(low, high, kind=int):
    """A number between two others."""
    def parse(text):
        number = kind(text)
        if not low <= number <= high:
            raise argparse.ArgumentTypeError(f"between {low} and {high}")
        return number
    return parse


def parser(description):
    """With the options that all have."""
    made = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    made.add_argument("--binary", default="target/release/outrigger",
                      help="the sidecar, a release build [default: %(default)s]")
    made.add_argument("--rounds", type=bounded(2, 100), default=15,
                      help="rounds that count, after one to warm up [default: %(default)s]")
    made.add_argument("--connections", type=bounded(1, 512), default=64,
                      help="connections of the client [default: %(default)s]")
    made.add_argument("--no-install", action="store_true", help="never call apt-get")
    made.add_argument("--keep", type=pathlib.Path, metavar="DIR",
                      help="copy configs, logs and callgrind files there in the end")
    return made


def counted(description):
    """With those of a benchmark that sends so many requests a round, and may
    count instructions."""
    made = parser(description)
    made.add_argument("--requests", type=bounded(100, 20000), default=3000,
                      help="requests of a variant in a round [default: %(default)s]")
    made.add_argument("--client", choices=["auto", "wrk", "own"], default="auto",
                      help="auto: wrk where installed, else one in Python")
    made.add_argument("--no-instructions", action="store_true", help="leave valgrind out")
    return made


def read(made):
    """The arguments; the binary is there."""
    arguments = made.parse_args()
    find_binary(made, arguments)
    return arguments


def find_binary(made, arguments):
    """Makes `--binary` a whole path."""
    found = shutil.which(arguments.binary)
    if found is None:
        made.error(f"no binary at {arguments.binary}: cargo build --release, or --binary")
    arguments.binary = str(pathlib.Path(found).resolve())


def run(arguments, measured, wanted):
    """Calls `measured` with a folder of its own, once the `wanted` commands are
    installed where they may be. What it returns is the exit code."""
    # Ended from outside, everything that was started still ends with it.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("terminated"))
    machine.raise_limits()
    if not arguments.no_install:
        machine.install(wanted)
    with tempfile.TemporaryDirectory(prefix="outrigger-bench-") as name:
        folder = pathlib.Path(name)
        try:
            return measured(arguments, folder)
        except (machine.MachineError, load.LoadError, minting.MintError) as error:
            sys.exit(f"error: {error}")
        finally:
            if arguments.keep:
                # Sockets cannot be copied.
                shutil.copytree(folder, arguments.keep, dirs_exist_ok=True,
                                ignore=shutil.ignore_patterns("*.sock", "postgres"))
