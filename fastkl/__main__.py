"""The `fastkl` command, also `python -m fastkl`: its verbs, their arguments and its exit status.

A verb is a sub-parser whose `run` takes the parsed arguments. An error that `run` raises for a user becomes one line on
standard error.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from . import __version__, _demo, build_info
from .batch.command import add_arguments, run

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    _open_streams()
    try:
        return _run(argv)
    finally:
        for stream in (sys.stdout, sys.stderr):
            _drain(stream)


def _run(argv: Sequence[str] | None) -> int:
    arguments = _parser().parse_args(argv)
    try:
        status: int = arguments.run(arguments) or 0
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        if stop.args:  # a message about the part of the work that has been saved
            _say(f"fastkl: {stop}")
        return 130
    except BrokenPipeError:  # the reader has ended, as in `fastkl demo | head`
        return 141
    except (OSError, ValueError, TypeError, ImportError, MemoryError) as error:
        text = str(error) or "not enough memory"  # The other errors have a text.
        if isinstance(error, OSError) and error.filename is not None and error.strerror:
            text = f"{error.filename}: {error.strerror}"
        _say(f"fastkl: {text}")
        return 1
    return status


def _open_streams() -> None:
    """Give the command streams that it can write to: a closed one is None, and an encoding may lack characters."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115 - it stays open
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _drain(stream: TextIO) -> None:
    """Write what is left. What cannot be written is dropped: the interpreter's last flush would change the exit status."""
    try:
        stream.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _say(text: str) -> None:
    """Print the line on standard error, unless that is closed."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="fastkl", description="Information measures for rows of probabilities.")
    parser.add_argument("--version", action="version", version=f"fastkl {__version__}")
    parser.set_defaults(run=lambda _: parser.print_help())
    verbs = parser.add_subparsers(title="commands", metavar="")

    demo = verbs.add_parser("demo", help="compare fastkl with NumPy on Python's own library")
    demo.add_argument(
        "--library",
        type=Path,
        default=Path(sysconfig.get_path("stdlib")),
        metavar="FOLDER",
        help="read the .py files below this folder instead",
    )
    demo.add_argument(
        "--modules", type=_positive, default=200, metavar="N", help="compare the N largest (default: %(default)s)"
    )
    demo.set_defaults(run=lambda arguments: _demo.run(arguments.library, arguments.modules))

    score = verbs.add_parser("score", help="score the rows of files, of any size")
    add_arguments(score)
    score.set_defaults(run=run)

    info = verbs.add_parser("info", help="print the build, the SIMD tier and the number of threads")
    info.set_defaults(run=_print_info)
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _print_info(_: argparse.Namespace) -> None:
    for name, value in build_info().items():
        print(f"{name + ':':<16} {value}")


if __name__ == "__main__":
    sys.exit(main())
