#!/usr/bin/env python3
"""Draws which module imports which, by floors, the highest on top: of the library, or of the files of one module.

Usage: scripts/imports.py [MODULE] [--mermaid]     scripts/imports.py control --mermaid > control.mmd

Text has one line for each, with what it imports; the diagram leaves out the arrows that others imply. What is true of the
imports is checked by tests/layering.rs, which also reads them: no circle between files, and few floors.
"""
import argparse
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TEST = ["cargo", "test", "--locked", "--quiet", "--test", "layering", "--", "--ignored", "--exact", "--nocapture",
        "print_imports"]


def read_imports():
    """The files of the library, each with those that it imports."""
    output = subprocess.run(TEST, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [line.split(" ")[1:] for line in output.splitlines() if line.startswith("import ")]
    return {file: {name for name in imports if name} for file, *imports in lines}


def of_modules(files):
    """The same between the modules of the root."""
    modules = {}
    for file, imports in files.items():
        module = file.split("::")[0]
        modules.setdefault(module, set()).update({name.split("::")[0] for name in imports} - {module})
    return modules


def of_files(files, module):
    """The same between the files of a module, whose names leave that of the module out."""
    inside = {file for file in files if file.split("::")[0] == module}
    short = {file: file.removeprefix(module).removeprefix("::") or "mod" for file in inside}
    return {short[file]: {short[name] for name in files[file] & inside} for file in inside}


def floors_of(imports):
    """One above the highest that is imported; fails on a circle."""
    floors = {}
    while len(floors) < len(imports):
        free = [name for name in imports if name not in floors and imports[name] <= floors.keys()]
        if not free:
            sys.exit(f"imports.py: a circle among {', '.join(sorted(imports.keys() - floors.keys()))}")
        floors.update({name: 1 + max((floors[of] for of in imports[name]), default=0) for name in free})
    return floors


def reached(imports, name):
    """All that is imported, also by way of others."""
    found, left = set(), list(imports[name])
    while left:
        one = left.pop()
        if one not in found:
            found.add(one)
            left.extend(imports[one])
    return found


def text(imports, floors):
    width = max(map(len, imports))
    for floor in range(max(floors.values()), 0, -1):
        print(f"floor {floor}")
        for name in sorted(name for name in imports if floors[name] == floor):
            below = sorted(imports[name], key=lambda of: (-floors[of], of))
            print(f"  {name:{width}}  {' '.join(below)}".rstrip())


def mermaid(imports, floors):
    print("flowchart TD")
    for floor in range(max(floors.values()), 0, -1):
        names = " ".join(f'{name.replace("::", "__")}["{name}"];' for name in sorted(imports) if floors[name] == floor)
        print(f'  subgraph floor_{floor}["{floor}"]\n    direction LR\n    {names}\n  end')
    for name in sorted(imports):
        implied = set().union(*(reached(imports, of) for of in imports[name]))
        for below in sorted(imports[name] - implied):
            print(f"  {name.replace('::', '__')} --> {below.replace('::', '__')}")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("module", nargs="?", help="draw its files")
    parser.add_argument("--mermaid", action="store_true", help="a diagram that mermaid draws")
    args = parser.parse_args()
    files = read_imports()
    modules = of_modules(files)
    if args.module is not None and args.module not in modules:
        sys.exit(f"imports.py: no module {args.module!r}; there are {' '.join(sorted(modules))}")
    imports = of_files(files, args.module) if args.module else modules
    (mermaid if args.mermaid else text)(imports, floors_of(imports))


if __name__ == "__main__":
    main()
