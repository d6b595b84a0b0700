"""`vggnet data audit`: report the faults of a dataset."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from vggnet.cli import model_options as options
from vggnet.cli.options import ClassFolders, DataDir, SkipBad
from vggnet.cli.terminal import csv_line, say
from vggnet.errors import DataError

if TYPE_CHECKING:
    from vggnet.config import DataConfig
    from vggnet.data.audit import AuditedImages
    from vggnet.report.audit import Fault

_MOST_SHOWN = 300
"""Faults on the sheet; the table has all."""


def audit(
    name: Annotated[
        str, typer.Argument(help="A name from `vggnet data list`, or the path of your own data.")
    ],
    output: Annotated[
        Path, typer.Option("--output", "-o", help="Page; the table is beside it, as .csv.")
    ] = Path("audit.html"),
    data_dir: DataDir = None,
    skip_bad: SkipBad = False,
    class_folders: ClassFolders = None,
    force: options.Force = False,
    device: options.Device = "auto",
    threads: options.Threads = None,
) -> None:
    """Report copies, probably wrong labels and small classes of a dataset.

    Labels are checked by cross-validation: four networks, each trained on three quarters of the
    images, predict the rest. Nothing is moved or deleted.
    """
    from vggnet.artifacts.atomic import write_file
    from vggnet.artifacts.outputs import CSV, HTML, check_outputs
    from vggnet.config import DataConfig
    from vggnet.data.audit import load_all
    from vggnet.report.audit import render_audit

    table = output.with_suffix(".csv")
    check_outputs([(output, HTML), (table, CSV)], [Path(name)], force)
    data = DataConfig(
        dataset=name, data_dir=data_dir, skip_bad=skip_bad, class_folders=class_folders
    )
    found = load_all(data)
    if len(found.classes) < 2:
        raise DataError(f"{name} has only one class: there is nothing to distinguish")
    faults = [*_find_copies(found), *_find_labels(found, data, device, threads)]
    remarks = _summarize(found, faults)
    title, shown = f"vggnet data audit {name}", faults[:_MOST_SHOWN]
    page = render_audit(title, remarks, shown, found.examples.images, found.names)
    write_file(output, page.encode())
    lines = [csv_line("fault", "image", "label", "description")]
    lines += [
        csv_line(fault.kind, found.names[at], found.classes[found.examples.labels[at]], fault.words)
        for fault in faults
        for at in fault.images
    ]
    write_file(table, "\n".join([*lines, ""]).encode())
    for remark in remarks:
        say(remark)
    say(f"{output}, {table}")


def _find_copies(found: AuditedImages) -> list[Fault]:
    from vggnet.data.audit import find_copies
    from vggnet.report.audit import Fault

    faults = []
    for copies in find_copies(found.examples.images):
        places = list(copies.members)
        across = len(set(found.splits[places].tolist())) > 1
        labels = {found.classes[label] for label in found.examples.labels[places].tolist()}
        kind = f"{'exact' if copies.exact else 'near'} copies"
        words = " · ".join(found.names[at] for at in places)
        words += " · in more than one split" if across else ""
        words += f" · with different labels: {', '.join(sorted(labels))}" if len(labels) > 1 else ""
        faults.append(Fault(kind, copies.members, words))
    return faults


def _find_labels(
    found: AuditedImages, data: DataConfig, device: str, threads: int | None
) -> list[Fault]:
    from vggnet.engine.device import computing
    from vggnet.report.audit import Fault
    from vggnet.run.cross_validation import find_label_issues

    with computing("fp32", threads):
        issues = find_label_issues(found, data, device)
    return [
        Fault(
            "probably wrong label",
            (issue.index,),
            f"{found.names[issue.index]}: labelled {found.classes[issue.label]}, looks like "
            f"{found.classes[issue.suggestion]}",
        )
        for issue in issues
    ]


def _summarize(found: AuditedImages, faults: list[Fault]) -> list[str]:
    """Return what the audit found, in sentences."""
    from vggnet.data.audit import FEW, find_small_classes
    from vggnet.data.collection import TRAIN

    counts = Counter(fault.kind for fault in faults)
    across = sum("in more than one split" in fault.words for fault in faults)
    remarks = [
        f"{len(found.examples):,} images in {len(found.classes)} classes.",
        f"Exact copies: {counts['exact copies']:,} groups; near copies: "
        f"{counts['near copies']:,} pairs; {across:,} of them in more than one split.",
        f"Probably wrong labels: {counts['probably wrong label']:,}, the most suspect first.",
    ]
    trained = found.examples.labels[found.splits == TRAIN]
    if small := find_small_classes(trained, found.classes):
        names = ", ".join(f"{name} ({count})" for name, count in small)
        remarks.append(f"Classes with fewer than {FEW} training images: {names}.")
    if len(faults) > _MOST_SHOWN:
        remarks.append(f"The page shows the first {_MOST_SHOWN}; the table has all.")
    return remarks
