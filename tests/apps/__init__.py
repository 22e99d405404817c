"""Small Flask applications that tests run under gunicorn."""
