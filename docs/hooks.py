"""What `mkdocs build` adds to the pages under docs/: references, repository links, languages.

There is one site per language: `mkdocs.yml` builds the English one, `mkdocs.zh.yml` the Chinese one
with the pages of docs/zh/ in the place of their originals; what is not translated stays English.
"""

from __future__ import annotations

import re
from pathlib import Path, PurePosixPath
from posixpath import normpath, relpath
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import vggnet
from vggnet.cli import app

ROOT = Path(__file__).resolve().parent.parent
PAGES = [
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    "benchmarks/results/*.md",
    "benchmarks/results/*.png",
]
"""Files outside docs/ that are part of the site."""
HOME = {"en": "README.md", "zh": "README.zh-CN.md"}

_LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")
_FENCE = re.compile(r"(^```.*?^```$)", re.MULTILINE | re.DOTALL)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """Choose the pages of this language, and add those outside docs/."""
    chinese = config.theme["language"] == "zh"
    translated = {path.name for path in (ROOT / "docs/zh").glob("*.md")}
    chosen = Files([])
    for file in files:
        path = PurePosixPath(file.src_uri)
        if path.parts[0] == "zh":
            if chinese:
                chosen.append(_page(config, path.name, ROOT / "docs" / file.src_uri))
        elif not (chinese and file.src_uri in translated):
            chosen.append(file)
    chosen.append(_page(config, "index.md", ROOT / HOME["zh" if chinese else "en"]))
    for path in sorted(path for pattern in PAGES for path in ROOT.glob(pattern)):
        chosen.append(_page(config, path.relative_to(ROOT).as_posix(), path))
    return chosen


def _page(config: MkDocsConfig, uri: str, path: Path) -> File:
    file = File.generated(config, uri, abs_src_path=str(path))
    file.edit_uri = None
    return file


def on_page_markdown(markdown: str, *, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Fill in the references, and turn links of the repository into links of the site."""
    if page.file.src_uri == "reference/cli.md":
        markdown = markdown.replace("<!-- cli -->", _render_cli())
    if page.file.src_uri == "reference/python.md":
        public = [name for name in vggnet.__all__ if not name.startswith("_")]
        names = [f"::: vggnet.{name}" for name in (*public, "sklearn.VGGClassifier")]
        markdown = markdown.replace("<!-- python -->", "\n\n".join(names))
    source = Path(page.file.abs_src_path or "").relative_to(ROOT)
    places = {
        Path(file.abs_src_path).relative_to(ROOT).as_posix(): file.src_uri
        for file in files
        if file.abs_src_path and Path(file.abs_src_path).is_relative_to(ROOT)
    }
    # A page that is not translated keeps its English links, which lead to translations here.
    for name in (path.name for path in (ROOT / "docs/zh").glob("*.md")):
        places.setdefault(f"docs/{name}", name)
        places.setdefault(f"docs/zh/{name}", name)
    language = config.theme["language"]
    places[HOME[language]] = "index.md"
    other = {HOME["zh"]: "zh/", HOME["en"]: "../"}  # from one home to the other

    def link(match: re.Match[str]) -> str:
        image, text, target = match.groups()
        path, hash_, anchor = target.partition("#")
        if "://" in target or not path:
            return match[0]
        wanted = normpath((source.parent / path).as_posix())
        if wanted in places:
            near = relpath(places[wanted], PurePosixPath(page.file.src_uri).parent.as_posix())
            return f"{image}[{text}]({near}{hash_}{anchor})"
        if wanted in other:
            return f'<a href="{other[wanted]}">{text}</a>'
        # What is no page (source code, data): the site has no copy, so only the text stays.
        return text if (ROOT / wanted).exists() else match[0]

    parts = _FENCE.split(markdown)
    return "".join(part if part.startswith("```") else _LINK.sub(link, part) for part in parts)


def on_page_context(context: Any, *, page: Page, config: MkDocsConfig, nav: Any) -> Any:
    """Let the language menu lead to the same page in the other language."""
    root = "../" * page.url.count("/")
    chinese = config.theme["language"] == "zh"
    english, translation = (f"{root}../", root) if chinese else (root, f"{root}zh/")
    # The theme would take these for links from the site's root, but for the scheme.
    config.extra["alternate"] = [
        {"name": "English", "lang": "en", "link": f"page:{english}{page.url}"},
        {"name": "中文", "lang": "zh", "link": f"page:{translation}{page.url}"},
    ]
    return context


def on_post_page(output: str, *, page: Page, config: MkDocsConfig) -> str:
    """Finish the language menu; without links in the head the theme looks for no sitemaps."""
    output = re.sub(r'<link[^>]*rel="?alternate"?[^>]*>', "", output)
    return output.replace('href="page:"', 'href="./"').replace('href="page:', 'href="')


def _render_cli() -> str:
    """Return every command with its arguments and options, as its `--help` has them."""
    root = typer.main.get_command(app)
    return "\n\n".join(_render_command(root, "vggnet"))


def _render_command(command: Any, name: str) -> list[str]:
    parts = []
    commands = getattr(command, "commands", {})
    if not commands:
        context = command.make_context(name, [], resilient_parsing=True)
        usage = " ".join([name, *command.collect_usage_pieces(context)])
        parts += [f"## {name}", _escape(command.help or ""), f"```text\n{usage}\n```"]
        panel = None
        for one in command.get_params(context):
            record = one.get_help_record(context)
            if record is None or record[0] == "--help":
                continue
            if one.rich_help_panel != panel:
                panel = one.rich_help_panel
                parts.append(f"**{panel}**")
            parts.append(f"`{record[0]}`\n:   {_escape(record[1])}")
    for inner, one in commands.items():
        if not one.hidden:
            parts += _render_command(one, f"{name} {inner}")
    return parts


def _escape(text: str) -> str:
    return re.sub(r"([\[\]<>*_|\\])", r"\\\1", text)
