"""Live sessions: the single-file session manager's public API, over the hot store."""

from archiver.sessions.ids import generate_session_id
from archiver.sessions.manager import SessionManager
from archiver.sessions.model import ChatMessage, Session, UserInteraction
from archiver.sessions.singleton import get_session_manager

__all__ = [
    "ChatMessage",
    "Session",
    "SessionManager",
    "UserInteraction",
    "generate_session_id",
    "get_session_manager",
]
