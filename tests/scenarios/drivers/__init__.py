"""The drivers of the table: one HTTP library each, behind one shape."""
