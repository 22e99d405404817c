"""`python -m keyturn`: the same as `keyturn` on the command line."""

from keyturn.cli import main

if __name__ == "__main__":
    main()
