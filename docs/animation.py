"""Record a command in a terminal and draw it as an animated SVG.

    python docs/animation.py record docs/train.cast vggnet train
    python docs/animation.py render docs/train.cast docs/train.svg

`record` runs the command in a pseudo-terminal and writes what it prints, with timestamps, as an
asciicast v2 file (https://docs.asciinema.org/manual/asciicast/v2/). `render` replays that file
through a terminal emulator and draws one `<text>` per row and interval in which the row stays
unchanged. CSS keyframes show and hide these, so the file needs no script and plays on GitHub.
Nothing is sped up, and nothing is edited.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pty
import select
import struct
import sys
import termios
import time
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape
from pathlib import Path

import pyte

COLUMNS, ROWS = 100, 10
CHAR_WIDTH, LINE_HEIGHT, PADDING, TITLE_BAR = 8.4, 20, 16, 34
FRAME_SECONDS = 0.1
"""States that last less are skipped, for a smaller file."""
PAUSE_SECONDS = 6.0
"""How long the last screen stays before the animation starts again."""

COLORS = {  # name: (light theme, dark theme)
    "default": ("#1f2328", "#e6edf3"),
    "red": ("#cf222e", "#ff7b72"),
    "green": ("#1a7f37", "#3fb950"),
    "cyan": ("#1b7c83", "#56d4dd"),
    "bar": ("#0969da", "#58a6ff"),
    "done": ("#1a7f37", "#3fb950"),
    "rest": ("#d1d9e0", "#3d444d"),
    "faint": ("#818b98", "#9198a1"),
}
XTERM = {"f92672": "bar", "ff005f": "bar", "729c1f": "done", "5faf00": "done", "3a3a3a": "rest"}
"""rich's colors of a progress bar, as xterm's palette gives them."""

Run = tuple[str, str, bool]
"""Text, color and boldness of cells that look alike."""
Line = tuple[Run, ...]


def record(cast: Path, command: list[str]) -> int:
    """Run a command in a pseudo-terminal; write its output to `cast` and to this terminal."""
    process, terminal = pty.fork()
    if process == 0:
        os.environ.update(TERM="xterm-256color", COLUMNS=str(COLUMNS), LINES=str(ROWS))
        os.execvp(command[0], command)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
    started = time.monotonic()
    header = {"version": 2, "width": COLUMNS, "height": ROWS, "title": " ".join(command)}
    with cast.open("w", encoding="utf-8") as file:
        file.write(json.dumps(header) + "\n")
        for text in _output(terminal):
            sys.stdout.write(text)
            seconds = round(time.monotonic() - started, 3)
            file.write(json.dumps([seconds, "o", text], ensure_ascii=False) + "\n")
    return os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])


def _output(terminal: int) -> Iterator[str]:
    kept = b""
    while True:
        select.select([terminal], [], [])
        try:
            kept += os.read(terminal, 65536)
        except OSError:  # the program ended
            return
        try:
            text, kept = kept.decode(), b""
        except UnicodeDecodeError:  # a character was cut in two
            continue
        yield text


@dataclass(frozen=True)
class Frame:
    """The screen from `start` on, in seconds."""

    start: float
    lines: tuple[Line, ...]


def read_frames(cast: Path) -> tuple[str, list[Frame], float]:
    """Replay a recording: its title, its distinct screens, and its length in seconds."""
    head, *events = cast.read_text(encoding="utf-8").splitlines()
    title = json.loads(head)["title"]
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    stream.feed(f"$ {title}\r\n")
    frames = [Frame(0.0, _lines(screen))]
    seconds = 0.0
    for event in events:
        seconds, _, text = json.loads(event)
        stream.feed(text)
        lines = _lines(screen)
        if lines == frames[-1].lines:
            continue
        if seconds - frames[-1].start < FRAME_SECONDS and len(frames) > 1:
            frames[-1] = Frame(frames[-1].start, lines)
        else:
            frames.append(Frame(seconds, lines))
    return title, frames, seconds


def _lines(screen: pyte.Screen) -> tuple[Line, ...]:
    return tuple(_line(screen, row) for row in range(ROWS))


def _line(screen: pyte.Screen, row: int) -> Line:
    runs: list[Run] = []
    for column in range(COLUMNS):
        cell = screen.buffer[row][column]
        color = XTERM.get(cell.fg, cell.fg if cell.fg in COLORS else "default")
        if runs and runs[-1][1:] == (color, cell.bold):
            runs[-1] = (runs[-1][0] + cell.data, color, cell.bold)
        else:
            runs.append((cell.data, color, cell.bold))
    if runs and not runs[-1][0].strip():
        runs.pop()
    elif runs:
        runs[-1] = (runs[-1][0].rstrip(), *runs[-1][1:])
    return tuple(runs)


@dataclass(frozen=True)
class Interval:
    """One row that stays unchanged from `start` to `end`, in seconds."""

    row: int
    start: float
    end: float
    line: Line


def find_intervals(frames: list[Frame], length: float) -> list[Interval]:
    """Cut the frames into rows and the times in which each stays unchanged."""
    intervals = []
    for row in range(ROWS):
        start, line = 0.0, frames[0].lines[row]
        for frame in [*frames[1:], Frame(length, ((("\0", "", False),),) * ROWS)]:
            if frame.lines[row] != line:
                if line:
                    intervals.append(Interval(row, start, frame.start, line))
                start, line = frame.start, frame.lines[row]
    return intervals


def render(cast: Path, svg: Path) -> None:
    """Draw a recording as an animated SVG."""
    title, frames, seconds = read_frames(cast)
    length = seconds + PAUSE_SECONDS
    intervals = find_intervals(frames, length)
    width = COLUMNS * CHAR_WIDTH + 2 * PADDING
    height = ROWS * LINE_HEIGHT + TITLE_BAR + PADDING
    style = [_theme(0), f"@media (prefers-color-scheme:dark){{{_theme(1)}}}"]
    style.append("text{font:14px ui-monospace,SFMono-Regular,Menlo,Consolas,monospace}")
    style.append(f".f{{opacity:0;animation:{length:.2f}s step-end infinite}}.b{{font-weight:700}}")
    body = []
    for number, one in enumerate(intervals):
        y = TITLE_BAR + (one.row + 0.75) * LINE_HEIGHT
        text = f'<text x="{PADDING}" y="{y:g}" xml:space="preserve">{_spans(one.line)}</text>'
        if one.start == 0 and one.end == length:
            body.append(text)
            continue
        begin, end = (100 * moment / length for moment in (one.start, one.end))
        hide = f"{end:.2f}%{{opacity:0}}" if one.end < length else ""
        style.append(f"@keyframes k{number}{{{begin:.2f}%{{opacity:1}}{hide}}}")
        kind = "f l" if one.end == length else "f"
        attributes = f'class="{kind}" style="animation-name:k{number}"'
        body.append(text.replace("<text", f"<text {attributes}"))
    # With reduced motion, only the last screen is shown.
    still = "@media (prefers-reduced-motion:reduce){.f{animation:none!important}.l{opacity:1}}"
    dots = "".join(f'<circle cx="{x}" cy="17" r="6" class="w"/>' for x in (22, 42, 62))
    svg.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:g} {height:g}" '
        f'width="{width:g}" height="{height:g}" role="img" aria-label="{escape(title)}">'
        f"<style>{''.join(style)}{still}</style>"
        f'<rect width="{width:g}" height="{height:g}" rx="8" class="p"/>{dots}'
        f'<text x="{width / 2:g}" y="22" text-anchor="middle" class="faint">{escape(title)}</text>'
        f"{''.join(body)}</svg>\n",
        encoding="utf-8",
    )
    print(f"{svg}: {len(intervals)} rows, {svg.stat().st_size / 1000:.0f} kB, {seconds:.1f} s")


def _theme(which: int) -> str:
    fills = {f".{name}": values[which] for name, values in COLORS.items()}
    fills |= {"text": fills[".default"], ".w": fills[".rest"], ".p": ("#f6f8fa", "#151b23")[which]}
    return "".join(f"{selector}{{fill:{color}}}" for selector, color in fills.items())


def _spans(line: Line) -> str:
    spans = []
    for text, color, bold in line:
        classes = " ".join(([color] if color != "default" else []) + ["b"] * bold)
        shown = escape(text, quote=False)
        spans.append(f'<tspan class="{classes}">{shown}</tspan>' if classes else shown)
    return "".join(spans)


def main() -> int:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    steps = parser.add_subparsers(dest="step", required=True)
    recording = steps.add_parser("record", help="run a command and record its output")
    recording.add_argument("cast", type=Path)
    recording.add_argument("command", nargs=argparse.REMAINDER)
    rendering = steps.add_parser("render", help="draw a recording as an SVG")
    rendering.add_argument("cast", type=Path)
    rendering.add_argument("svg", type=Path)
    given = parser.parse_args()
    if given.step == "record":
        return record(given.cast, given.command)
    render(given.cast, given.svg)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
