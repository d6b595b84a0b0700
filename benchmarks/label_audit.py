"""Measure how many wrong labels `vggnet data audit` ranks first.

    python benchmarks/label_audit.py --output benchmarks/results/label_audit

First it takes 5,000 training images of MNIST, changes 200 labels at random to another digit, and
counts how many of them are among the first 300 suspects; once for each seed. Then it audits MNIST
as it is, and compares the suspects among the test labels with the 15 that people found to be wrong.
"""

from __future__ import annotations

import statistics

import numpy as np
from measuring import build_parser, render_machine, write_report

from vggnet.config import DataConfig
from vggnet.data.audit import AuditedImages, LabelIssue, load_all
from vggnet.data.collection import TEST
from vggnet.data.dataset import LabeledImages
from vggnet.data.storage import load_dataset
from vggnet.engine.device import computing
from vggnet.run.cross_validation import find_label_issues

IMAGES, CHANGED, FIRST = 5_000, 200, 300

KNOWN = (
    947, 1621, 1901, 2130, 2462, 2597, 2654, 3520, 3558, 5937, 6651, 6783, 8527, 9679, 9729,
)  # fmt: skip
"""MNIST's test images whose label fewer than three of five people confirmed, from 0. Source:
`mturk/mnist_mturk.json` of https://github.com/cleanlab/label-errors; Northcutt, Athalye and Mueller
(arXiv 2103.14749) count 15, too."""


def count_changed(seed: int) -> int:
    """Return how many of the changed labels are among the first suspects."""
    mnist = load_dataset("mnist")
    generator = np.random.default_rng(seed)
    labels = mnist.train.labels[:IMAGES].astype(np.int64)
    changed = generator.choice(IMAGES, CHANGED, replace=False)
    labels[changed] = (labels[changed] + generator.integers(1, 10, CHANGED)) % 10
    examples = LabeledImages(mnist.train.images[:IMAGES], labels, 10, "MNIST with changed labels")
    names = [str(number) for number in range(IMAGES)]
    found = AuditedImages(examples, mnist.classes, names, np.zeros(IMAGES, np.int64))
    issues = find_label_issues(found, DataConfig())
    return len({issue.index for issue in issues[:FIRST]} & set(changed.tolist()))


def suspect_test_labels() -> list[LabelIssue]:
    """Audit MNIST, and return the suspects among its test labels, numbered from 0."""
    found = load_all(DataConfig())
    first = int(np.flatnonzero(found.splits == TEST)[0])
    return [
        LabelIssue(issue.index - first, issue.label, issue.suggestion, issue.margin)
        for issue in find_label_issues(found, DataConfig())
        if issue.index >= first
    ]


def render_known(suspects: list[LabelIssue]) -> str:
    """Render which of the known wrong labels are among the suspects, and where."""
    ranks = {issue.index: rank for rank, issue in enumerate(suspects, 1)}
    by_index = {issue.index: issue for issue in suspects}
    rows = [
        f"| {index} | {ranks[index]} | {by_index[index].label} | {by_index[index].suggestion} |"
        for index in sorted(KNOWN, key=lambda index: ranks.get(index, len(KNOWN) + 10_000))
        if index in ranks
    ]
    missed = [str(index) for index in KNOWN if index not in ranks]
    within = sum(ranks.get(index, len(suspects)) <= len(KNOWN) for index in KNOWN)
    return f"""\
## Test labels of MNIST that are known to be wrong

The audit of MNIST as it is, 70,000 images, suspects {len(suspects)} of the 10,000 test labels. Of
the {len(KNOWN)} test labels that fewer than three of five people confirmed (Northcutt, Athalye and
Mueller, arXiv 2103.14749; `mturk/mnist_mturk.json` of cleanlab/label-errors), it suspects
{len(rows)}; {within} are among its first {len(KNOWN)}, and the median rank of those it suspects is
{statistics.median(ranks[index] for index in KNOWN if index in ranks):g}. Not suspected: \
{", ".join(missed) or "none"}.

| test image, from 0 | rank among suspects | label | suggestion |
|---|---|---|---|
{chr(10).join(rows)}
"""


def main() -> None:
    parser = build_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=3)
    options = parser.parse_args()
    with computing("fp32", None):
        found = [count_changed(seed) for seed in range(options.seeds)]
        suspects = suspect_test_labels()
    report = f"""\
# Wrong labels that the audit finds

## Changed labels

Of {CHANGED} labels changed at random among {IMAGES:,} of MNIST's training images, among the first
{FIRST} suspects are: {", ".join(map(str, found))} ({options.seeds} seeds); the fewest are
{100 * min(found) / CHANGED:.1f} %.

{render_known(suspects)}
{render_machine()}"""
    figures = {"found": found, "suspects": [issue.index for issue in suspects], "known": KNOWN}
    write_report(options.output, report, figures)


if __name__ == "__main__":
    main()
