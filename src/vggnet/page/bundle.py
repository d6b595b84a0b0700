"""ES modules become one script, without a tool that a contributor would have to install.

Each module becomes a function that returns its exports; the order follows from the imports. The
modules of the page keep to two forms, `import { a, b } from "./other.js"` and
`export function|async function|class|const name`; anything else is refused.
"""

from __future__ import annotations

import re
from importlib.resources import files

_IMPORT = re.compile(r'^import \{([^}]*)\} from "\./(\w+)\.js";$', re.MULTILINE)
_EXPORT = re.compile(r"^export ((?:async )?(?:function|class|const) (\w+))", re.MULTILINE)
_OTHER = re.compile(r"^(?:import|export)\b.*|.*\bimport\(.*", re.MULTILINE)


def read_part(name: str) -> str:
    """Return the text of a file of the page."""
    return files("vggnet.page").joinpath(name).read_text(encoding="utf-8")


def bundle(entry: str) -> str:
    """Return one classic script with a module and all that it imports.

    Args:
        entry: Name of the module, without ".js".

    Raises:
        ValueError: A module imports or exports in another form, or imports itself.
    """
    parts: dict[str, str] = {}
    _add(entry, parts, ())
    return '"use strict";\n' + "\n".join(parts.values())


def _add(name: str, parts: dict[str, str], importers: tuple[str, ...]) -> None:
    """Add a module behind those that it imports."""
    if name in importers:
        raise ValueError(f"{name}.js imports itself: {' > '.join((*importers, name))}")
    if name in parts:
        return
    source = read_part(f"{name}.js")
    for _, imported in _IMPORT.findall(source):
        _add(imported, parts, (*importers, name))
    exports = [found for _, found in _EXPORT.findall(source)]
    body = _IMPORT.sub(r"const {\1} = modules_\2;", source)
    body = _EXPORT.sub(r"\1", body)
    if other := _OTHER.search(body):
        raise ValueError(f"{name}.js: {other[0]!r} cannot be bundled")
    returned = f"return {{ {', '.join(exports)} }};\n" if exports else ""
    parts[name] = f"const modules_{name} = (() => {{\n{body}{returned}}})();"
