"""sessionlake, live side: sessions that survive, and their exactly-once way into the archive."""

from archiver.sessions import (
    ChatMessage,
    Session,
    SessionManager,
    UserInteraction,
    generate_session_id,
    get_session_manager,
)

__all__ = [
    "ChatMessage",
    "Session",
    "SessionManager",
    "UserInteraction",
    "generate_session_id",
    "get_session_manager",
]
