"""The part of an OpenAI-shaped API that the tests call: chat completions, whole and streamed, and uploads."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from tests.interop.loopback import Room

WORDS = ["one ", "refresh, ", "however ", "many ", "requests"]
SENTENCE = "".join(WORDS)

_HEAD = {"id": "chatcmpl-1", "created": 1, "model": "parrot"}


def chat_api(room: Room) -> Starlette:
    """Return the application. A completion visits `room` before it is sent, a stream after its first word."""

    async def completions(request: Request) -> Response:
        asked = await request.json()
        if asked.get("stream"):
            return StreamingResponse(_words(room), media_type="text/event-stream")
        async with room.visit():
            message = {"role": "assistant", "content": asked["messages"][-1]["content"]}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
        return JSONResponse({**_HEAD, "object": "chat.completion", "choices": [choice]})

    async def files(request: Request) -> Response:
        async with request.form() as form:
            file = form["file"]
            assert isinstance(file, UploadFile)
            size = len(await file.read())
        described = {"id": "file-1", "object": "file", "bytes": size, "filename": file.filename}
        return JSONResponse({**described, "created_at": 1, "purpose": form["purpose"], "status": "processed"})

    return Starlette(
        routes=[
            Route("/v1/chat/completions", completions, methods=["POST"]),
            Route("/v1/files", files, methods=["POST"]),
        ]
    )


async def _words(room: Room) -> AsyncIterator[str]:
    async with room.visit():
        yield _event({"role": "assistant", "content": WORDS[0]})
    for word in WORDS[1:]:
        yield _event({"content": word})
    yield _event({}, finish_reason="stop")
    yield "data: [DONE]\n\n"


def _event(delta: dict[str, str], finish_reason: str | None = None) -> str:
    choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
    chunk = {**_HEAD, "object": "chat.completion.chunk", "choices": [choice]}
    return f"data: {json.dumps(chunk)}\n\n"
