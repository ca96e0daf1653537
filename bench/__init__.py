"""Speed and memory, measured: `python3 -m bench [NAME ...]`; `--list` says what there is.

A module here whose name does not begin with an underscore is a bench: its docstring's first line
says what it measures, and its `run() -> None` measures and prints. Nothing but the standard
library is needed. BENCH_SECS (20) is how long each run with live guests takes.
"""
