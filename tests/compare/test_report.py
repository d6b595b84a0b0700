"""A report states only what the rows allow, and every renderer escapes its text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from compare.samples import HOST, make_point, make_result, make_row
from vggnet.compare.comparability import accuracy_difference, entries_of, speedup
from vggnet.compare.conclusions import conclude, crossovers, curves_of
from vggnet.compare.report import build_report
from vggnet.compare.result import Parts, Result
from vggnet.report.html import render_html
from vggnet.report.markdown import render_markdown

FILE = Path("compare.json")
CPU = make_row()
PARTS = make_row().parts.model_dump()  # type: ignore[union-attr]
GPU = make_row("cuda:0", (1.0, 1.0, 1.5))


def answer(*results: Result) -> str:
    """Return the answer for some results."""
    return conclude(entries_of([(f"m{n}", one) for n, one in enumerate(results)]))[0]


def test_the_answer_is_a_speedup_with_its_range() -> None:
    """Paired repeats 10/1, 11/1 and 12/1.5 give 10×, 8× to 11×."""
    assert answer(make_result(CPU, GPU)) == (
        "cuda:0 · fp32 · batch 128 trains 10× (8 to 11) as fast as "
        "cpu · 2 threads · fp32 · batch 128, both in strict fp32."
    )


def test_the_baseline_is_the_fastest_thread_count() -> None:
    """A slower thread count is not the baseline."""
    slow = make_row(threads=1, seconds=(100.0,) * 3)
    assert "as fast as cpu · 2 threads" in answer(make_result(slow, CPU, GPU))


def test_ranges_of_separate_runs_are_the_widest() -> None:
    """Without pairs, the range is the slowest of one run over the fastest of the other."""
    one, two = entries_of([("a", make_result(CPU)), ("b", make_result(GPU))])
    assert speedup(one, two) == pytest.approx((11, 10 / 1.5, 12))


@pytest.mark.parametrize(
    ("changes", "row", "words"),
    [
        ({"dataset_sha256": "1" * 64}, {}, "dataset"),
        ({"train": {"peak_lr": 1e-3}}, {}, "train.peak_lr (0.0065 and 0.001)"),
        ({"train": {"seed": 7}}, {}, "train.seed (0 and 7)"),
        ({"model": {"hidden": (64,)}}, {}, "model.hidden"),
        ({}, {"losses": (2.3, 2.0, 1.0)}, "steps (2 and 3)"),
        ({}, {"global_batch_size": 256}, "batch size (128 and 256)"),
        ({}, {"losses": (2.4, 1.0)}, "loss of the first step (2.3000 and 2.4000)"),
    ],
)
def test_other_work_gets_no_speedup(
    changes: dict[str, Any], row: dict[str, Any], words: str
) -> None:
    """The answer and the table state the difference and no speedup."""
    results = [make_result(CPU), make_result(make_row("cuda:0", **row), **changes)]
    said = answer(*results)
    assert said.startswith("No speedup of")
    assert words in said
    report = build_report([("a", results[0]), ("b", results[1])], {}, FILE)
    assert report.main.table is not None
    ratios = [cells[4] for cells in report.main.table.rows if cells[0].startswith("b")]
    assert ratios == ["— [1]"]


@pytest.mark.parametrize(
    ("changes", "row", "words"),
    [
        ({"torch": "0.1"}, {}, "torch (0.0 and 0.1)"),
        ({"complete": False}, {}, "m1 was cut short"),
        ({}, {"precision": "bf16"}, "precision (fp32 and bf16)"),
    ],
)
def test_other_software_is_a_caveat(
    changes: dict[str, Any], row: dict[str, Any], words: str
) -> None:
    """The same work with another torch or precision gets a speedup with a caveat."""
    said = answer(make_result(CPU), make_result(make_row("cuda:0", **row), **changes))
    assert "trains 1× (0.833 to 1.2) as fast as m0: cpu" in said
    assert "Not only the device differs: " in said
    assert words in said


def test_best_settings_need_the_same_work() -> None:
    """Best settings of different work get no speedup either."""
    best = make_row("cuda:0", (0.5,) * 3, precision="bf16", strict=False, best=True)
    of_cpu = make_row(strict=False, best=True, kernels="winograd", seconds=(5.0, 5.5, 6.0))
    said = conclude(entries_of([("", make_result(CPU, of_cpu, GPU, best))]))
    assert said[1].startswith("Best settings: cuda:0 · bf16")
    other = make_result(GPU, best, augment={"rotation": 5.0})
    said = conclude(entries_of([("a", make_result(CPU, of_cpu)), ("b", other)]))
    assert said[1] == (
        "No speedup between best settings: the work differs in augment.rotation (0.0 and 5.0)."
    )


def test_different_networks_are_not_compared() -> None:
    """For two networks, no sentence says that the work is the same or where time was saved."""
    faster = make_row("cuda:0", (1.0,) * 3, parts=Parts.model_validate({**PARTS, "forward_ms": 1}))
    other = make_result(faster, model={"hidden": (64,)}, sweep=(make_point(8, 1.0, "cuda:0"),))
    report = build_report(
        [("a", make_result(CPU, sweep=(make_point(8, 2.0),))), ("b", other)], {}, FILE
    )
    text = render_markdown(report)
    assert "do different work than a: cpu" in text
    assert "Every row starts from the same weights" not in text
    assert "faster than" not in text
    assert "ms less than a step" not in text
    alike = build_report([("", make_result(CPU, faster))], {}, FILE)
    assert "ms less than a step" in render_markdown(alike)


def test_the_hash_identifies_the_dataset() -> None:
    """The same images in another folder are the same dataset."""
    results = [make_result(row, data={"dataset": name}) for row, name in ((CPU, "a"), (GPU, "b"))]
    assert "as fast as" in answer(*results)


def test_builds_of_one_torch_release() -> None:
    """2.13.0+cpu and 2.13.0+cu130 are no difference."""
    results = make_result(CPU, torch="2.13.0+cpu"), make_result(GPU, torch="2.13.0+cu130")
    assert "Not only the device" not in answer(*results)


def test_a_cpu_without_a_gpu() -> None:
    """CPU settings are compared, and the commands to add a GPU are printed."""
    slow = make_row(threads=1, seconds=(20.0, 22.0, 24.0))
    best = make_row(kernels="winograd", strict=False, best=True, seconds=(5.0, 5.5, 6.0))
    alone = make_result(slow, CPU, best, accelerators=())
    report = build_report([("", alone)], {}, Path("my laptop/compare.json"))
    assert report.answer == (
        "Only the CPU was measured: 2 threads train 2× (2 to 2) as fast as 1, and the best "
        "setting (compiled kernels) processes 2× (2 to 2) as many images/s as strict fp32."
    )
    commands = [command for _, command in report.commands]
    assert commands[0] == "vggnet compare --devices cpu,cuda --steps 2 --output gpu"
    assert commands[1] == ("vggnet compare 'my laptop/compare.json' gpu/compare.json --output both")
    for other in (make_result(CPU, GPU), make_result(CPU, complete=False, accelerators=())):
        assert not build_report([("", other)], {}, FILE).commands


def test_paired_accuracy() -> None:
    """Only images on which both disagree count, and the interval contains the difference."""
    ours = make_row("cuda:0", mistakes=(1, 2, 3, 10, 11, 12, 13))
    one, two = entries_of([("", make_result(CPU, ours))])
    found = accuracy_difference(one, two)
    assert found is not None
    assert found[0] == pytest.approx(-0.004)
    assert found[1] < -0.004 < found[2]
    assert found[2] - found[1] < 0.01
    same = accuracy_difference(one, one)
    assert same is not None
    assert same[1] < 0 < same[2]


def test_crossover() -> None:
    """The smallest batch size from which a device stays faster is reported."""
    points = [make_point(x, 1.0) for x in (8, 32, 128)]
    points += [make_point(8, 2.0, "cuda:0"), make_point(32, 0.5, "cuda:0")]
    points += [make_point(128, 0.1, "cuda:0")]
    entries = entries_of([("", make_result(CPU, GPU, sweep=tuple(points)))])
    (said,) = crossovers(curves_of(entries, "batch"))
    assert said == "cuda:0 · fp32 is faster than the best CPU setting from batch size 32 upwards."


def test_prices() -> None:
    """60,000 images at 256 in 11 s take 2578 s, which cost 2.58 at 3.60 per hour."""
    report = build_report([("", make_result(CPU))], {"cpu": 3.6}, FILE)
    assert report.main.table is not None
    assert report.main.table.rows[0][-1] == "2.58"


class _Reader(HTMLParser):
    """Collects the tags and attributes of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes |= {name for name, _ in attrs}


TAGS = {
    *("html", "head", "meta", "title", "style", "body", "p", "h1", "h2", "div", "pre", "figure"),
    *("figcaption", "span", "b", "table", "thead", "tbody", "tr", "th", "td", "svg", "line"),
    *("polyline", "circle", "text", "ul", "li", "details", "summary"),
}


@given(
    text=st.one_of(
        st.text(st.characters(exclude_categories=["C", "Z"]), max_size=40),
        st.sampled_from(
            [
                "<script>alert(1)</script>",
                '"><img src=x onerror=alert(1)>',
                "</style><svg/onload=a>",
            ]
        ),
    )
)
def test_a_hostile_file_adds_no_tags(text: str) -> None:
    """Whatever text a file contains, the page has only our tags, no handlers and no URLs."""
    result = make_result(CPU, GPU, host=text, created=text, sweep=(make_point(8, 1.0),))
    report = build_report([(text, result), ("b", result)], {}, FILE)
    reader = _Reader()
    reader.feed(render_html(report, "vggnet compare"))
    assert reader.tags <= TAGS
    assert not {"src", "href"} & reader.attributes
    assert not [name for name in reader.attributes if name.startswith("on")]
    markdown = render_markdown(report)
    assert not re.search(r"(?<!\\)<", markdown)
    lines = [line for line in markdown.splitlines() if line.startswith("| setting")]
    assert lines


def test_the_page_starts_with_the_answer() -> None:
    """The first heading is the answer; the caveat and the host follow."""
    report = build_report([("", make_result(CPU, GPU, complete=False))], {}, FILE)
    page = render_html(report, "vggnet compare")
    assert page.index("<h1>cuda:0") < page.index("<h2>")
    assert "was cut short" in page
    assert HOST in page
    assert "<script" not in page
