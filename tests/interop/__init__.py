"""keyturn under the libraries that people use, and on the way from those that it takes over from."""
