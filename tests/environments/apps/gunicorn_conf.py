"""The settings of gunicorn that docs/environments.md shows."""


def post_fork(server: object, worker: object) -> None:
    """Make the credentials of a worker."""
    from tests.environments.apps import service

    service.sign_in()
