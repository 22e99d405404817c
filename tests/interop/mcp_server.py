"""An MCP server over streamable HTTP, built with the SDK's own: one tool that echoes, one that announces."""

from __future__ import annotations

from mcp.server import Server, ServerRequestContext
from mcp_types import (
    CallToolRequestParams,
    CallToolResult,
    ListToolsResult,
    PaginatedRequestParams,
    TextContent,
    Tool,
)
from starlette.applications import Starlette

from tests.interop.loopback import Room

_ANY = {"type": "object"}


def tools_server(room: Room) -> Starlette:
    """Return the application: `echo` visits `room` before it answers, `announce` speaks on the stream."""

    async def list_tools(
        context: ServerRequestContext, params: PaginatedRequestParams | None
    ) -> ListToolsResult:
        return ListToolsResult(tools=[Tool(name=name, input_schema=_ANY) for name in ("echo", "announce")])

    async def call_tool(context: ServerRequestContext, params: CallToolRequestParams) -> CallToolResult:
        if params.name == "announce":
            await context.session.send_tool_list_changed()
        async with room.visit():
            said = str((params.arguments or {}).get("said"))
        return CallToolResult(content=[TextContent(type="text", text=said)])

    return Server("tests", on_list_tools=list_tools, on_call_tool=call_tool).streamable_http_app()
