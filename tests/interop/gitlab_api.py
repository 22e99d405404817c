"""The part of GitLab's API that the tests call: projects, pages of issues, an upload."""

from __future__ import annotations

from starlette.applications import Starlette
from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tests.interop.loopback import Room

PAGES = 3


def gitlab_api(room: Room) -> Starlette:
    """Return the application. A project visits `room` before it is sent."""

    async def project(request: Request) -> Response:
        number = request.path_params["number"]
        async with room.visit():
            return JSONResponse({"id": number, "name": f"project {number}"})

    async def issues(request: Request) -> Response:
        if request.method == "POST":
            return JSONResponse({"iid": 1, "title": (await request.json())["title"]}, 201)
        page = int(request.query_params.get("page", "1"))
        following = f'<{request.url.include_query_params(page=page + 1)}>; rel="next"'
        return JSONResponse([{"iid": page}], headers={"Link": following} if page < PAGES else {})

    async def upload(request: Request) -> Response:
        async with request.form() as form:
            file = form["file"]
            assert isinstance(file, UploadFile)
            size = len(await file.read())
        return JSONResponse({"id": size, "alt": "", "url": "", "full_path": "", "markdown": ""}, 201)

    project_path = "/api/v4/projects/{number:int}"
    return Starlette(
        routes=[
            Route(project_path, project),
            Route(project_path + "/issues", issues, methods=["GET", "POST"]),
            Route(project_path + "/uploads", upload, methods=["POST"]),
        ]
    )
