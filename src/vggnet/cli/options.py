"""Options that several commands share, and those derived from the configuration's fields."""

from __future__ import annotations

import functools
import inspect
import types
from collections.abc import Callable, Collection
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

import typer

from vggnet.config import SECTIONS, DataConfig, spell_flag
from vggnet.recipes import load_overrides


def _describe(name: str) -> str | None:
    return DataConfig.model_fields[name].description


Recipe = Annotated[
    str | None,
    typer.Option(help="Recipe to start from: fast (the default), finetune, best or article."),
]
ConfigFile = Annotated[
    Path | None, typer.Option(help="TOML or JSON file with settings that override the recipe.")
]
DataDir = Annotated[Path | None, typer.Option(help=_describe("data_dir"))]
SkipBad = Annotated[bool, typer.Option("--skip-bad", help=_describe("skip_bad"))]
ClassFolders = Annotated[
    Literal["outer", "inner"] | None, typer.Option(help=_describe("class_folders"))
]


@dataclass(frozen=True)
class DataOptions:
    """Where a dataset is, and how it is read."""

    data_dir: DataDir = None
    download: Annotated[bool, typer.Option(help=_describe("download"))] = True
    skip_bad: SkipBad = False
    class_folders: ClassFolders = None


def option_groups(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options, each as one object.

    Instead of a parameter whose type is a dataclass, the command line has the dataclass's fields.
    """
    signature = inspect.signature(command, eval_str=True)
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for one in signature.parameters.values():
        if is_dataclass(one.annotation):
            groups[one.name] = one.annotation
            parameters += _list_options(one.annotation)
        else:
            parameters.append(one.replace(kind=one.KEYWORD_ONLY))

    @functools.wraps(command)
    def call(**values: Any) -> None:
        for name, group in groups.items():
            values[name] = group(**{one.name: values.pop(one.name) for one in fields(group)})
        command(**values)

    call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return call


def _list_options(group: Any) -> list[inspect.Parameter]:
    """Return the fields of a group as parameters."""
    kind = inspect.Parameter.KEYWORD_ONLY
    hints = get_type_hints(group, include_extras=True)
    return [
        inspect.Parameter(one.name, kind, default=one.default, annotation=hints[one.name])
        for one in fields(group)
    ]


def config_flags(command: Callable[..., None], omit: Collection[str] = ()) -> Callable[..., None]:
    """Give a command one optional flag per field of the configuration.

    The command takes them as `**flags`, None if not given; `read_settings` turns them into
    nested settings. `omit` lists fields that get no flag, as section_name.
    """
    signature = inspect.signature(command, eval_str=True)
    own = [one for one in signature.parameters.values() if one.kind is not one.VAR_KEYWORD]
    derived = [
        inspect.Parameter(
            f"{section}_{name}",
            inspect.Parameter.KEYWORD_ONLY,
            default=None,
            annotation=Annotated[
                _plain_type(field.annotation) | None,
                typer.Option(
                    *spell_flag(name, field),
                    help=field.description,
                    rich_help_panel=f"Settings: {section}",
                    show_default=False,
                ),
            ],
        )
        for section, fields in SECTIONS.items()
        for name, field in fields.model_fields.items()
        if spell_flag(name, field) and f"{section}_{name}" not in omit
    ]
    command.__signature__ = signature.replace(parameters=[*own, *derived])  # type: ignore[attr-defined]
    return command


def read_settings(
    config: Path | None, recipe: str | None, flags: dict[str, Any]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the settings of a --config file, and those of the flags, which override them.

    Raises:
        ConfigError: The file cannot be read, or does not contain settings.
    """
    return load_overrides(config) if config else {}, nest_flags(flags) | (
        {} if recipe is None else {"recipe": recipe}
    )


def nest_flags(flags: dict[str, Any]) -> dict[str, Any]:
    """Return the flags that were given, as settings nested by section."""
    return {
        section: {
            name: flags[f"{section}_{name}"]
            for name in fields.model_fields
            if flags.get(f"{section}_{name}") is not None
        }
        for section, fields in SECTIONS.items()
    }


def _plain_type(annotation: Any) -> Any:
    """Return the type that the command line reads; the configuration checks the value."""
    parts = get_args(annotation)
    if annotation is bool or bool in parts:
        return bool
    if get_origin(annotation) is Literal:
        return annotation
    if any(get_origin(part) is Literal for part in parts):
        return str
    if get_origin(annotation) is tuple and Ellipsis in parts:
        return str
    if get_origin(annotation) is tuple and Ellipsis not in parts:
        return types.GenericAlias(tuple, tuple(_plain_type(part) for part in parts))
    for plain in (int, float, Path):
        if annotation is plain or plain in parts:
            return plain
    return str
