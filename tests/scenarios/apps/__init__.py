"""Small applications as people write them, each served as a process of its own by `serve`."""
