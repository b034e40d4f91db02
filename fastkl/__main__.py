"""The `fastkl` command, also `python -m fastkl`: its verbs, their arguments, and how it ends.

A verb is a sub-parser whose `run` takes the parsed arguments. What it cannot do it says with an OSError, which becomes
one line on standard error.
"""

from __future__ import annotations

import argparse
import os
import sys
import sysconfig
from pathlib import Path
from typing import TYPE_CHECKING

from . import __version__, _demo, build_info
from .batch.command import add_arguments, run

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status."""
    parser = _parser()
    arguments = parser.parse_args(argv)
    try:
        arguments.run(arguments)
        sys.stdout.flush()
    except KeyboardInterrupt as stop:
        if stop.args:  # what is kept
            print(f"fastkl: {stop}", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader has gone, as in `fastkl demo | head`; the interpreter's own last flush must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except OSError as error:
        named = error.filename is not None and error.strerror
        print(f"fastkl: {error.filename}: {error.strerror}" if named else f"fastkl: {error}", file=sys.stderr)
        return 1
    except (ValueError, TypeError, ImportError, MemoryError) as error:
        print(f"fastkl: {error or 'not enough memory'}", file=sys.stderr)
        return 1
    return 0


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

    info = verbs.add_parser("info", help="say what this build is and what it would use here")
    info.set_defaults(run=lambda _: _print_info())
    return parser


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("must be at least 1")
    return number


def _print_info() -> None:
    for name, value in build_info().items():
        print(f"{name + ':':<16} {value}")


if __name__ == "__main__":
    sys.exit(main())
