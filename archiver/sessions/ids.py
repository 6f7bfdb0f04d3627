"""New session ids."""

from __future__ import annotations

import secrets


def generate_session_id() -> str:
    """128 random bits, URL-safe: 22 characters, fit to be the only credential of an anonymous session."""
    return secrets.token_urlsafe(16)
