"""The audit finds copies, wrong labels and small classes, and writes where it was told."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from conftest import Outcome
from vggnet.data.audit import find_copies, find_small_classes, rank_label_issues

Command = Callable[..., Outcome]


def test_copies() -> None:
    """Equal pixels are exact; another brightness or a changed pixel is near; others are neither."""
    images = np.random.default_rng(0).integers(0, 200, (6, 1, 28, 28), np.uint8)
    images[3] = images[1]
    images[4] = images[0] // 2 + 20
    found = [(copies.members, copies.exact) for copies in find_copies(images)]
    assert found == [((0, 4), False), ((1, 3), True)]
    assert not find_copies(np.zeros((1, 3, 8, 8), np.uint8))


def test_confident_contradictions_come_first() -> None:
    """The label that the networks reject most is first; those they confirm are no suspects."""
    probabilities = np.array(
        [[0.9, 0.1], [0.8, 0.2], [0.02, 0.98], [0.1, 0.9], [0.45, 0.55], [0.3, 0.7]], np.float32
    )
    labels = np.array([0, 0, 0, 1, 0, 1])
    issues = rank_label_issues(probabilities, labels)
    assert [(issue.index, issue.label, issue.suggestion) for issue in issues] == [
        (2, 0, 1),
        (4, 0, 1),
    ]
    assert not rank_label_issues(np.eye(3, dtype=np.float32), np.arange(3))


def test_small_classes() -> None:
    """Fewer than 50 images; a class without any counts too."""
    labels = np.array([0] * 50 + [1] * 49)
    assert find_small_classes(labels, ("a", "b", "c")) == [("b", 49), ("c", 0)]


def test_the_command(vggnet: Command, tmp_path: Path) -> None:
    """Images in the wrong folder and copies are in the table and on the page, and stay there."""
    generator = np.random.default_rng(0)
    for number in range(80):
        name = ("dark", "light")[number % 2]
        pixels = generator.integers(0, 100, (12, 12), np.uint8) + np.uint8(150 * (number % 2))
        path = tmp_path / "set" / name / f"{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    (tmp_path / "set/dark/00.png").rename(tmp_path / "set/light/wrong.png")
    (tmp_path / "set/dark/copy.png").write_bytes((tmp_path / "set/dark/02.png").read_bytes())
    before = sorted(tmp_path.rglob("*.png"))
    done = vggnet("data", "audit", "set", "--threads", 1)
    assert done.code == 0, done.err
    assert sorted(tmp_path.rglob("*.png")) == before
    rows = list(csv.DictReader(Path("audit.csv").read_text(encoding="utf-8").splitlines()))
    faults = {(row["fault"], Path(row["image"]).name) for row in rows}
    assert {("exact copies", "02.png"), ("exact copies", "copy.png")} <= faults
    assert ("probably wrong label", "wrong.png") in faults
    page = Path("audit.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == len(rows)
    assert "Classes with fewer than 50" in done.out
    assert vggnet("data", "audit", "set", "-o", "set/dark/02.png").code == 2
