"""Manifests of format version 1, which hold their inputs and retried sources as lists."""

from __future__ import annotations

from typing import Any

from pipeline.core.keys import key_to_bytes


def upgrade_manifest(loaded: dict[str, Any]) -> dict[str, Any]:
    """Returns the fields of a manifest of version 1 in the form of version 2.

    The tables' entries refer to the manifest itself, from which `inline_inputs` and `inline_retried` read them.

    Raises:
      ValueError: a list is malformed.
    """
    path = f"manifests/{loaded.get('wave')}.json"
    inputs, retried = inline_inputs(loaded), inline_retried(loaded)

    def entry(rows: int) -> list[dict[str, Any]]:
        return [{"path": path, "size_bytes": 0, "crc32c": "", "rows": rows}] if rows else []

    return {
        **loaded,
        "inputs": entry(len(inputs)),
        "retried": entry(len(retried)),
        "input_keys": sorted({item["keys"] for item in inputs}),
    }


def inline_inputs(loaded: dict[str, Any]) -> list[dict[str, Any]]:
    """Returns the inputs of a manifest of version 1, one dictionary with the fields of `InputEntry` for each.

    Raises:
      ValueError: the list is malformed.
    """
    try:
        keys = "offset" if loaded.get("key_feature") is None else "feature"
        return [
            {
                "path": _path(item["path"]),
                "name": _path(item["name"]),
                "size_bytes": int(item["size_bytes"]),
                "mtime_s": float(item["mtime_s"]),
                "records": int(item.get("records", 1)),
                "keys": item.get("keys") or keys,
            }
            for item in loaded["inputs"]
        ]
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"its inputs are malformed: {error!r}") from None


def inline_retried(loaded: dict[str, Any]) -> list[str]:
    """Returns the retried sources of a manifest of version 1.

    Raises:
      ValueError: one is no text that a run wrote.
    """
    return [_path(source) for source in loaded.get("retried") or ()]


def _path(value: object) -> str:
    text = str(value)
    key_to_bytes(text)  # a text with other surrogates than those of `surrogateescape` stands for no path
    return text
