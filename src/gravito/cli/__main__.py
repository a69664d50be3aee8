"""`python -m gravito.cli`: the terminal's commands, where the script is not on PATH."""

from gravito.cli import app

app(prog_name="gravito")
