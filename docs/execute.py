"""Run the code of documentation pages and write its output into them.

    python docs/execute.py docs/predict.md docs/article.md

A page is Markdown. Its ```python blocks, and its ```console blocks of `$ command` lines, run from
top to bottom in one Jupyter kernel, in a temporary folder that holds `docs/` and
`mnist_vggnet.pth`. The output replaces what follows the block: text in an ```text block, figures
as files under `docs/img/`. A block after `<!-- not run -->` is left alone, one after
`<!-- fails -->` must fail, and `<!-- head 12 -->` keeps the first 12 lines of the output.

A page of the same name under `docs/zh/` takes over the output, so its code must be the same but
for comments. `--notebook FILE` also writes the page as a notebook.
"""

from __future__ import annotations

import argparse
import base64
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient

import vggnet

DOCS = Path(__file__).resolve().parent
SETUP = """
import os
for name in ("FORCE_COLOR", "CLICOLOR_FORCE"):  # the kernel's; commands would draw progress bars
    os.environ.pop(name, None)
"""

PLACE = """# Work in a temporary folder that has the documentation's files.
import os
import tempfile
from pathlib import Path

docs = Path("../docs").resolve()
os.chdir(tempfile.mkdtemp())
Path("docs").symlink_to(docs)"""
"""The first cell of a page that is also a notebook under examples/."""

_PART = re.compile(
    r"(?:^<!-- (?P<mark>not run|fails|head \d+) -->\n)?"
    r"^```(?P<language>python|console)\n(?P<code>.*?)^```\n"
    r"(?P<output>(?:\n?<!-- output -->\n.*?<!-- /output -->\n)?)",
    re.MULTILINE | re.DOTALL,
)


@dataclass
class Block:
    """One code block of a page."""

    mark: str
    language: str
    code: str
    cell: Any = None
    """The notebook's cell of this block, which holds its outputs."""

    @property
    def is_run(self) -> bool:
        """Whether the block runs."""
        return self.mark != "not run"

    @property
    def source(self) -> str:
        """The block as a notebook cell."""
        if self.language == "python":
            return self.code.rstrip("\n")
        commands = [line.removeprefix("$ ").removeprefix("> ") for line in self.code.splitlines()]
        if self.mark == "fails":
            return "%%bash\n! (" + "\n".join(commands) + ")"
        return "%%bash\n" + "\n".join(commands)

    @property
    def essence(self) -> str:
        """The code without comments, which a translation changes."""
        return re.sub(r"\s+#.*$|^#.*\n", "", self.code, flags=re.MULTILINE)


def read_page(text: str) -> list[str | Block]:
    """Cut a page into prose and code blocks; old output is dropped."""
    parts: list[str | Block] = []
    end = 0
    for match in _PART.finditer(text):
        parts.append(text[end : match.start()])
        parts.append(Block(match["mark"] or "", match["language"], match["code"]))
        end = match.end()
    return [*parts, text[end:]]


def build_notebook(parts: list[str | Block]) -> Any:
    """Return the page as a notebook; every block that runs knows its cell."""
    cells: list[Any] = []
    for part in parts:
        if isinstance(part, Block) and part.is_run:
            part.cell = nbformat.v4.new_code_cell(part.source)
            cells.append(part.cell)
        else:
            text = part if isinstance(part, str) else f"```{part.language}\n{part.code}```"
            text = re.sub(r"<!--.*?-->\n?", "", text, flags=re.DOTALL).strip()
            if text and cells and cells[-1].cell_type == "markdown":
                cells[-1].source += f"\n\n{text}"
            elif text:
                cells.append(nbformat.v4.new_markdown_cell(text))
    for number, cell in enumerate(cells):
        cell.id = f"cell-{number}"  # random by default, which would change with every run
    return nbformat.v4.new_notebook(cells=cells, metadata={"language_info": {"name": "python"}})


def execute(notebook: Any, folder: Path) -> None:
    """Run a notebook in a folder.

    Raises:
        CellExecutionError: A block failed.
    """
    bin_folder = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}",
        "COLUMNS": "100",
        "NO_COLOR": "1",
        "PYTHONWARNINGS": "ignore",
    }
    notebook.cells.insert(0, nbformat.v4.new_code_cell(SETUP))
    client = NotebookClient(notebook, timeout=3600, resources={"metadata": {"path": str(folder)}})
    client.execute(env=environment)
    notebook.cells.pop(0)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = join_streams(cell.outputs)


def join_streams(outputs: list[Any]) -> list[Any]:
    """Join what a cell printed in pieces, and replace this machine's paths in it."""
    joined: list[Any] = []
    for one in outputs:
        if one.output_type != "stream":
            joined.append(one)
        elif joined and joined[-1].get("name") == one.name:
            joined[-1].text += one.text
        else:
            joined.append(one)
    for one in joined:
        if one.output_type == "stream":
            one.text = one.text.replace(str(Path(vggnet.__file__).parent), ".../vggnet")
    return joined


def render_output(block: Block, name: str) -> str:
    """Return a block's output as Markdown; figures go to `docs/img/NAME-N.png`."""
    pieces: list[str] = []
    text = ""
    for one in block.cell.outputs if block.cell else ():
        if one.output_type == "stream":
            text += one.text
        elif "image/png" in one.data:
            path = DOCS / "img" / f"{name}.png"
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(base64.b64decode(one.data["image/png"]))
            pieces.append(f"![{name}](img/{path.name})")
        else:
            text += one.data["text/plain"] + "\n"
    lines = [line.rstrip() for line in text.strip("\n").splitlines()]
    if block.mark.startswith("head"):
        lines = [*lines[: int(block.mark.split()[1])], "…"]
    if lines:
        pieces.insert(0, "```text\n" + "\n".join(lines) + "\n```")
    if not pieces:
        return ""
    return "\n<!-- output -->\n" + "\n\n".join(pieces) + "\n<!-- /output -->\n"


def render_page(parts: list[str | Block], outputs: Iterator[str]) -> str:
    """Put a page together again, with these outputs behind its blocks."""
    page = ""
    for part in parts:
        if isinstance(part, str):
            page += part
            continue
        mark = f"<!-- {part.mark} -->\n" if part.mark else ""
        page += f"{mark}```{part.language}\n{part.code}```\n{next(outputs)}"
    return page


def update(page: Path, model: Path | None, notebook_file: Path | None) -> None:
    """Run one page; write its outputs into it and into its translation."""
    parts = read_page(page.read_text(encoding="utf-8"))
    notebook = build_notebook(parts)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if notebook_file:
            notebook.cells.insert(0, nbformat.v4.new_code_cell(PLACE, id="place"))
        for linked in ("docs", "benchmarks"):
            (folder / linked).symlink_to(DOCS.parent / linked)
        if model:
            shutil.copy(model, folder / "mnist_vggnet.pth")
        execute(notebook, notebook_file.parent if notebook_file else folder)
    blocks = [part for part in parts if isinstance(part, Block)]
    for figure in (DOCS / "img").glob(f"{page.stem}-*.png"):
        figure.unlink()
    outputs = [
        render_output(block, f"{page.stem}-{number}") for number, block in enumerate(blocks, 1)
    ]
    if any(str(folder) in output for output in outputs):
        raise SystemExit(f"{page}: an output names the temporary folder")
    page.write_text(render_page(parts, iter(outputs)), encoding="utf-8")
    translation = page.parent / "zh" / page.name
    if translation.exists():
        update_translation(translation, blocks, outputs)
    if notebook_file:
        nbformat.write(notebook, notebook_file)


def update_translation(page: Path, originals: list[Block], outputs: list[str]) -> None:
    """Write the original's outputs into its translation.

    Raises:
        SystemExit: The translation has other code.
    """
    parts = read_page(page.read_text(encoding="utf-8"))
    blocks = [part for part in parts if isinstance(part, Block)]
    for one, other in zip(originals, blocks, strict=True):
        if one.essence != other.essence:
            raise SystemExit(f"{page} has other code:\n{other.code}\nnot\n{one.code}")
    shown = (output.replace("](img/", "](../img/") for output in outputs)
    page.write_text(render_page(parts, shown), encoding="utf-8")


def main() -> None:
    """Run the pages that are named."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pages", nargs="+", type=Path)
    parser.add_argument("--model", type=Path, help="copied to mnist_vggnet.pth for each page")
    parser.add_argument("--notebook", type=Path, help="write the page as a notebook, too")
    given = parser.parse_args()
    for page in given.pages:
        update(page, given.model, given.notebook)
        print(page)


if __name__ == "__main__":
    main()
