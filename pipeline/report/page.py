"""Renders pages: templates, style and scripts become one HTML file that requests nothing."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib import resources

from jinja2 import Environment, PackageLoader, StrictUndefined

_PACKAGE = "pipeline.report"


def render(template: str, *, scripts: Sequence[str] = (), **values: object) -> bytes:
    """Returns a page as UTF-8.

    A policy in the page forbids requests, and every script but those given here, by their digests.

    Args:
      template: name of the template.
      scripts: the scripts that run, in this order. None of them has text from strangers.
      **values: what the template shows; all texts are escaped.
    """
    environment = Environment(
        loader=PackageLoader(_PACKAGE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    # Bokeh reads an object only if what it refers to comes first.
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False, "separators": (",", ":")}
    text = environment.get_template(template).render(
        scripts=scripts,
        style=read_asset("style.css"),
        policy=_policy(scripts),
        **values,
    )
    return text.encode("utf-8")


def read_asset(name: str) -> str:
    """Returns a file beside the templates."""
    return (resources.files(_PACKAGE) / "templates" / name).read_text(encoding="utf-8")


def _policy(scripts: Sequence[str]) -> str:
    """Returns the Content Security Policy (level 3) of a page."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"
    return f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
