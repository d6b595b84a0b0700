"""What a model is: its layers, classes, training data and scores, as values and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from typing import Any

from vggnet.artifacts.model_card import ModelCard
from vggnet.data.dataset import describe_shape
from vggnet.model.summary import LayerSummary, summarize_network
from vggnet.model.vgg import VGG

LAYER_COLUMNS = ("stage", "layer", "output", "parameters", "MFLOPs", "receptive field")

_MOST_CLASSES = 20
"""Classes that are named in one line."""


def describe_model(network: VGG, card: ModelCard) -> dict[str, Any]:
    """Return what is known of a model as plain values for JSON."""
    layers = summarize_network(network)
    return {
        "architecture": network.config.name,
        "depth": network.config.depth,
        "parameters": sum(one.parameters for one in layers),
        "flops": sum(one.operations for one in layers),
        "image_shape": list(card.image_shape),
        "input_size": network.config.image_size,
        "mean": list(card.mean),
        "std": list(card.std),
        "classes": list(card.classes),
        "layers": [vars(one) | {"output": list(one.output)} for one in layers],
        "dataset": card.data.dataset,
        "dataset_sha256": card.dataset_sha256,
        "recipe": (card.config or {}).get("recipe"),
        "init": card.init,
        "test": card.test,
    }


def describe_facts(network: VGG, card: ModelCard) -> dict[str, str]:
    """Return what is known of a model for people, by what it is."""
    layers = summarize_network(network)
    config, shape = network.config, describe_shape(card.image_shape)
    padded = f", padded to {config.image_size}" * (config.image_size != max(card.image_shape[1:]))
    facts = {
        "architecture": f"{config.name}, {config.depth} layers with weights",
        "parameters": f"{sum(one.parameters for one in layers):,}",
        "FLOPs": f"{sum(one.operations for one in layers) / 1e6:,.1f} million for one image",
        "images": f"{shape}{padded}; mean {_numbers(card.mean)}, std {_numbers(card.std)}",
        "classes": f"{len(card.classes):,}: {_names(card.classes)}",
        "trained on": card.data.dataset or "unknown: the file does not say",
    }
    if recipe := (card.config or {}).get("recipe"):
        facts["recipe"] = str(recipe)
    if card.init:
        facts["started from"] = card.init.get("name", "")
    if card.test:
        accuracy, count = card.test.get("accuracy", 0.0), card.test.get("count", 0)
        facts["test"] = f"accuracy {100 * accuracy:.2f} % of {count:,.0f} images"
        facts["test"] += f", loss {card.test.get('loss', 0.0):.4f}"
    return facts


def layer_cells(layers: Sequence[LayerSummary]) -> list[tuple[str, ...]]:
    """Return the cells of a table under `LAYER_COLUMNS`."""
    return [
        (
            one.stage,
            one.name,
            "×".join(map(str, one.output)),
            f"{one.parameters:,}",
            f"{one.operations / 1e6:,.2f}",
            "whole image" if one.receptive_field is None else f"{one.receptive_field} pixels",
        )
        for one in layers
    ]


def render_model(network: VGG, card: ModelCard) -> str:
    """Return HTML: the facts, and a table of the layers."""
    facts = "".join(
        f'<tr><th>{name}</th><td style="text-align:left">{escape(text)}</td></tr>'
        for name, text in describe_facts(network, card).items()
    )
    head = "".join(f"<th>{name}</th>" for name in LAYER_COLUMNS)
    rows = "".join(
        f"<tr>{''.join(f'<td>{cell}</td>' for cell in row)}</tr>"
        for row in layer_cells(summarize_network(network))
    )
    return f"<table>{facts}</table><table><tr>{head}</tr>{rows}</table>"


def _numbers(values: tuple[float, ...]) -> str:
    return ", ".join(f"{value:.4g}" for value in dict.fromkeys(values))


def _names(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _MOST_CLASSES:,} more" if len(names) > _MOST_CLASSES else ""
    return ", ".join(names[:_MOST_CLASSES]) + more
