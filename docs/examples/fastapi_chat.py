"""A chat service: streamed answers, feedback on steps, and nothing lost when a browser leaves mid-answer.

Run it with ``uvicorn fastapi_chat:app`` (pip install fastapi uvicorn sessionlake). Sessions live in
``./data/sessions``; ``sessionlake sweep --watch`` beside it archives them when they expire.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Literal

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel

from archiver import SessionManager, generate_session_id
from archiver.aio import AsyncSessionManager
from archiver.errors import InputError, StorageError, StoreBusyError, UnknownSessionError


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    """One manager for the program; closing it waits for calls under way."""
    manager = SessionManager(os.environ.get("CHAT_SESSIONS"))
    async with AsyncSessionManager(manager) as sessions:
        app.state.sessions = sessions
        yield


app = FastAPI(lifespan=lifespan)


class Ask(BaseModel):
    """A user's message; ``client_id`` makes a retried request harmless."""

    text: str
    client_id: str | None = None


class Verdict(BaseModel):
    """Feedback on one step of the reasoning, or on an answer."""

    node_id: str | None = None
    feedback: Literal["correct", "incorrect", "partial"]
    comment: str = ""


@app.post("/sessions")
async def start(request: Request) -> dict[str, str]:
    """A new session; its id is the only credential, so it has 128 random bits."""
    session_id = generate_session_id()
    await request.app.state.sessions.create_session(session_id)
    return {"session_id": session_id}


@app.post("/sessions/{session_id}/messages")
async def ask(session_id: str, body: Ask, request: Request) -> StreamingResponse:
    """Store the question, then stream the answer; what was streamed is stored even if the browser leaves."""
    sessions: AsyncSessionManager = request.app.state.sessions
    await sessions.add_message(session_id, "user", body.text, client_id=body.client_id)

    async def stream() -> AsyncIterator[str]:
        said: list[str] = []
        try:
            async for token in answer(body.text):
                said.append(token)
                yield token
        finally:
            await sessions.add_message(session_id, "assistant", "".join(said))

    return StreamingResponse(stream(), media_type="text/plain")


async def answer(question: str) -> AsyncIterator[str]:
    """Your model goes here."""
    for word in f"You asked: {question}".split(" "):
        yield word + " "


@app.post("/sessions/{session_id}/feedback", status_code=204)
async def judge(session_id: str, verdict: Verdict, request: Request) -> None:
    """A verdict survives a power cut when this returns."""
    await request.app.state.sessions.add_feedback(
        session_id, verdict.node_id, verdict.feedback, context=verdict.comment, actor="human:web"
    )


@app.get("/sessions/{session_id}/messages")
async def history(session_id: str, request: Request, last: int = 50) -> list[dict[str, str | None]]:
    """The end of the conversation: costs what it returns, however long the history is."""
    page = await request.app.state.sessions.messages(session_id, last=last)
    return [message.to_dict() for message in page]


@app.exception_handler(UnknownSessionError)
async def unknown(_: Request, error: UnknownSessionError) -> JSONResponse:
    """No such session: 404."""
    return JSONResponse({"error": error.kind}, status_code=404)


@app.exception_handler(InputError)
async def wrong(_: Request, error: InputError) -> JSONResponse:
    """A bad id or text: 422, with what was wrong."""
    return JSONResponse({"error": error.kind, "message": error.message}, status_code=422)


@app.exception_handler(StoreBusyError)
@app.exception_handler(StorageError)
async def later(_: Request, error: StoreBusyError | StorageError) -> JSONResponse:
    """Nothing was written: the browser may send it again."""
    return JSONResponse({"error": error.kind}, status_code=503, headers={"Retry-After": "1"})
