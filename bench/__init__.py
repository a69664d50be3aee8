"""The project's benchmark: `python -m bench`, or `make bench`. Reports; never asserts a time."""
