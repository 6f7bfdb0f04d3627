"""Self-contained HTML pages in which no text from a session can become markup or code.

A page is fixed markup, fixed styles and scripts, and data. Its Content-Security-Policy names the
digests of exactly these styles and scripts, forbids every request, and (Trusted Types) forbids the
scripts themselves to turn text into markup.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
from collections.abc import Sequence
from importlib import resources
from typing import Any, Final

_ESCAPES: Final = {ord(c): f"\\u{ord(c):04x}" for c in "<>&\u2028\u2029"}
_LANGUAGE: Final = "en"


def asset(name: str) -> str:
    """A text file that the package carries."""
    return (resources.files("pipelines.report") / "static" / name).read_text("utf-8")


def json_for_script(value: Any) -> str:
    """JSON that may stand inside a script element: it holds none of the characters that end or open markup."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).translate(_ESCAPES)


def page(*, title: str, body: str, styles: Sequence[str], scripts: Sequence[str], data: str | None = None) -> bytes:
    """A whole page. ``title`` is plain text, ``body`` markup of ours; ``data`` comes from :func:`json_for_script`."""
    data_block = f'<script type="application/json" id="data">{data}</script>\n' if data is not None else ""
    style_blocks = "\n".join(f"<style>{style}</style>" for style in styles)
    script_blocks = "\n".join(f"<script>{script}</script>" for script in scripts)
    text = f"""<!DOCTYPE html>
<html lang="{_LANGUAGE}">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{_policy(styles, scripts)}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<meta name="referrer" content="no-referrer">
<title>{html.escape(title)}</title>
<link rel="icon" href="data:,">
{style_blocks}
</head>
<body>
{body}
{data_block}{script_blocks}
</body>
</html>
"""
    return text.encode(errors="replace")  # JSON may spell lone surrogates, which no encoding has


def _policy(styles: Sequence[str], scripts: Sequence[str]) -> str:
    return "; ".join(
        [
            "default-src 'none'",
            f"script-src {' '.join(_digest(s) for s in scripts)}",
            f"style-src {' '.join(_digest(s) for s in styles)}",
            "img-src data:",
            "base-uri 'none'",
            "form-action 'none'",
            "require-trusted-types-for 'script'",
            "trusted-types 'none'",
        ]
    )


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
