"""Print text that may hold foreign names, without letting them control the terminal."""

from __future__ import annotations

import logging
import sys


def printable(text: str) -> str:
    r"""Escape characters that move the cursor, change colors or reorder text: ESC to `\x1b`."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode()
        for one in text
    )


def printable_lines(text: str) -> str:
    """Do the same, but keep line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def say(text: str, *, error: bool = False) -> None:
    """Print lines of text, escaped, to standard output or standard error."""
    print(printable_lines(text), file=sys.stderr if error else sys.stdout)


def warn(message: str) -> None:
    """Print a warning to standard error."""
    say(f"vggnet: warning: {message}", error=True)


class _WarningHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def print_logged_warnings() -> None:
    """Print what vggnet's modules log, such as assumptions, as warnings of the command line."""
    logger = logging.getLogger("vggnet")
    logger.handlers = [_WarningHandler(logging.WARNING)]
    logger.propagate = False
