"""New session ids."""

from __future__ import annotations

import secrets


def generate_session_id() -> str:
    """128 random bits, URL-safe: 22 characters, fit to be the only credential of an anonymous session.

    It begins with a letter or a digit, so that no command line takes it for an option.
    """
    while not (drawn := secrets.token_urlsafe(16))[0].isalnum():
        pass
    return drawn
