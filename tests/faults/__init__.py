"""The fault bench: every promise about a broken server or network, attacked with real processes.

`make faults` runs all rows in full and prints the table; `python -m tests.faults kill9 --full` runs one.
"""
