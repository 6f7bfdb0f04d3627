"""A program that writes sessions and says, line by line on a descriptor, what was acknowledged.

    python hot_writer.py DIRECTORY DURABILITY ACK_FD SEED

Run by the crash tests, which kill it at any point.
"""

from __future__ import annotations

import os
import random
import sys
from pathlib import Path

SESSIONS = 7


def main(directory: str, durability: str, ack_fd: int, seed: int) -> None:
    """Write until killed: by id, through objects, feedback, graphs; every text is unique."""
    from archiver import SessionManager

    chance = random.Random(seed)
    manager = SessionManager(directory, durability=durability)  # type: ignore[arg-type]
    name = f"w{os.getpid()}-{seed}"
    for i in range(1_000_000):
        session_id, text = f"s{chance.randrange(SESSIONS)}", f"{name}:{i}"
        kind = chance.randrange(10)
        if kind < 6:
            manager.get_or_create(session_id)
            manager.add_message(session_id, "user", text)
        elif kind < 8:
            session = manager.get_or_create(session_id)
            session.add_message("assistant", text)
            session.metadata["last"] = text
            manager.save_session(session_id)
        elif kind < 9:
            manager.get_or_create(session_id)
            manager.record_interaction(session_id, "note", content=text, durability=durability)  # type: ignore[arg-type]
        else:
            manager.update_graph_state(session_id, {"nodes": [{"id": text, "content": "x" * chance.randrange(20_000)}]})
            manager.add_message(session_id, "system", text)
        os.write(ack_fd, f"{session_id} {text}\n".encode())


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[2]))
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
