"""Print text that may hold foreign names, without letting them control the terminal."""

from __future__ import annotations

import csv
import io
import logging
import sys

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
"""How a cell begins that spreadsheets take for a formula."""


def printable(text: str) -> str:
    r"""Escape characters that move the cursor, change colors or reorder text: ESC to `\x1b`."""
    return "".join(
        one if one.isprintable() else one.encode("unicode_escape", "backslashreplace").decode()
        for one in text
    )


def printable_lines(text: str) -> str:
    """Do the same, but keep line breaks."""
    return "\n".join(map(printable, text.split("\n")))


def csv_line(*cells: object) -> str:
    """Return a row of a CSV table, safe to open in a spreadsheet."""
    file = io.StringIO()
    # A spreadsheet runs a cell that begins like a formula, unless a quote comes first.
    shown = [f"'{cell}" if str(cell).startswith(_FORMULA) else cell for cell in cells]
    csv.writer(file, lineterminator="").writerow(shown)
    return file.getvalue()


def say(text: str, *, error: bool = False) -> None:
    """Print lines of text, escaped, to standard output or standard error."""
    print(printable_lines(text), file=sys.stderr if error else sys.stdout)


def warn(*messages: str) -> None:
    """Print warnings to standard error."""
    for message in messages:
        say(f"vggnet: warning: {message}", error=True)


class _WarningHandler(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        warn(record.getMessage())


def print_logged_warnings() -> None:
    """Print what vggnet's modules log, such as assumptions, as warnings of the command line."""
    logger = logging.getLogger("vggnet")
    logger.handlers = [_WarningHandler(logging.WARNING)]
    logger.propagate = False
