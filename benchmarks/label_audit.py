"""Measure how many changed labels `vggnet data audit` ranks first.

    python benchmarks/label_audit.py --output benchmarks/results/label_audit

Takes the first 5,000 training images of MNIST, changes 200 labels at random to another digit,
and counts how many of them are among the first 300 suspects; once for each seed.
"""

from __future__ import annotations

import numpy as np
from measuring import build_parser, render_machine, write_report

from vggnet.cli.audit import judge_labels
from vggnet.config import DataConfig
from vggnet.data.audit import AuditedImages
from vggnet.data.dataset import LabeledImages
from vggnet.data.storage import load_dataset

IMAGES, CHANGED, FIRST = 5_000, 200, 300


def measure(seed: int) -> int:
    """Return how many of the changed labels are among the first suspects."""
    mnist = load_dataset("mnist")
    generator = np.random.default_rng(seed)
    labels = mnist.train.labels[:IMAGES].astype(np.int64)
    changed = generator.choice(IMAGES, CHANGED, replace=False)
    labels[changed] = (labels[changed] + generator.integers(1, 10, CHANGED)) % 10
    examples = LabeledImages(mnist.train.images[:IMAGES], labels, 10, "MNIST with changed labels")
    names = [str(number) for number in range(IMAGES)]
    found = AuditedImages(examples, mnist.classes, names, np.zeros(IMAGES, np.int64))
    issues = judge_labels(found, DataConfig(), "cpu", None)
    return len({issue.index for issue in issues[:FIRST]} & set(changed.tolist()))


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    found = [measure(seed) for seed in range(options.seeds)]
    report = f"""\
# Changed labels that the audit finds

Of {CHANGED} labels changed at random among {IMAGES:,} of MNIST's training images, among the first
{FIRST} suspects are: {", ".join(map(str, found))} ({options.seeds} seeds); the fewest are
{100 * min(found) / CHANGED:.1f} %.

{render_machine()}"""
    write_report(options.output, report, {"found": found})


if __name__ == "__main__":
    main()
