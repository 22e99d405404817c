"""Applications that gunicorn and Celery serve in the tests of environments."""
