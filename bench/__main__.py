"""Run the benches that are named, or all of them."""

from __future__ import annotations

import argparse
import importlib
import pkgutil
import sys
from types import ModuleType

import bench


def find() -> dict[str, ModuleType]:
    """Return the benches by name."""
    names = sorted(module.name for module in pkgutil.iter_modules(bench.__path__))
    modules = {name: importlib.import_module(f"bench.{name}") for name in names if name[:1] != "_"}
    return {name: module for name, module in modules.items() if hasattr(module, "run")}


def main() -> int:
    parser = argparse.ArgumentParser(prog="python3 -m bench", description=bench.__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="what to run (all)")
    parser.add_argument("--list", action="store_true", help="say what there is, and exit")
    options = parser.parse_args()
    found = find()
    unknown = set(options.names) - set(found)
    if unknown:
        parser.error(f"no such bench: {', '.join(sorted(unknown))}")
    for name in options.names or found:
        title = (found[name].__doc__ or "").partition("\n")[0].rstrip(".")
        print(f"{name:14} {title}" if options.list else f"\n== {name}: {title}", flush=True)
        if not options.list:
            found[name].run()
    return 0


if __name__ == "__main__":
    sys.exit(main())
