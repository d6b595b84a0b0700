"""A report on a terminal loses no figure, however narrow the terminal is."""

from __future__ import annotations

import re

import pytest

from vggnet.report.document import Report, Section, Table
from vggnet.report.terminal import print_report

COLUMNS = ("setting", "s/epoch", "images/s", "speedup", "accuracy %")
NAME = "cpu · 2 threads · fp32 · batch 128 [strict]"
CELLS = ("40.1 (39.5 to 41.6)", "1,494", "2.52× [1] (2.49 to 2.58)", "96.88")


@pytest.mark.parametrize("width", [30, 60, 80, 200])
def test_all_figures_are_printed(
    width: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """All words of a row are printed in full at every width."""
    monkeypatch.setenv("COLUMNS", str(width))
    monkeypatch.setenv("FORCE_COLOR", "1")  # rich then writes as to a terminal
    section = Section("Throughput", table=Table(COLUMNS, ((NAME, *CELLS),)))
    print_report(Report("The answer.", (), section, ()), [])
    printed = re.sub(r"\x1b\[\d*m", "", capsys.readouterr().out).split()
    for text in (NAME, *CELLS):
        assert set(text.split()) <= {word.strip(",") for word in printed}
