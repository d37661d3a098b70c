#!/usr/bin/env python3
"""Measures the language of the comments in src/: words that make a text hard to scan, and words that state contracts.

Counts, in the comments (///, //!, //) of each module, per 1,000 words:

  told     tell, tells, told, telling: say report, log, notify, return
  who      who, whom, whoever, whose, nobody: programs are no people
  opening  lines that open with What, Who, Whether or That: begin with a noun or with a verb
  returns  return, returns, returned: a function's doc says what it returns
  must     must, should: what callers and operators have to do

Fails when a limit is passed in src/ as a whole: told and who 0.5, opening 3.0; must at least 2.5.
"""

import argparse
import pathlib
import re
import sys
from dataclasses import dataclass, field

SOURCE = pathlib.Path(__file__).resolve().parent.parent / "src"
COMMENT = re.compile(r"^(?P<code>[^\"]*(?:\"[^\"]*\"[^\"]*)*?)(?<![:/])//[/!]?(?:\s(?P<text>.*))?$")
WORD = re.compile(r"[A-Za-z][A-Za-z'_-]*")
KINDS = {
    "told": re.compile(r"\b(?:tell|tells|told|telling)\b", re.IGNORECASE),
    "who": re.compile(r"\b(?:who|whom|whoever|whose|nobody)\b", re.IGNORECASE),
    "opening": re.compile(r"^(?:[-*] )?(?:What|Who|Whether|That)\b"),
    "returns": re.compile(r"\breturn(?:s|ed)?\b", re.IGNORECASE),
    "must": re.compile(r"\b(?:must|should)\b", re.IGNORECASE),
}
AT_MOST = {"told": 0.5, "who": 0.5, "opening": 3.0}
AT_LEAST = {"must": 2.5}


@dataclass
class Count:
    words: int = 0
    found: dict[str, int] = field(default_factory=lambda: dict.fromkeys(KINDS, 0))

    def add(self, text: str) -> None:
        self.words += len(WORD.findall(text))
        for kind in KINDS:
            self.found[kind] += len(KINDS[kind].findall(text))

    def rate(self, kind: str) -> float:
        return 1000 * self.found[kind] / max(self.words, 1)


def comments(file: pathlib.Path):
    """Yields the number and the text of each line with a comment; skips the examples and drawings in docs."""
    fenced = False
    for number, line in enumerate(file.read_text(encoding="utf-8").splitlines(), 1):
        found = COMMENT.match(line)
        text = ((found and found["text"]) or "").strip()
        if text.startswith("```"):
            fenced = not fenced
        elif text and not fenced:
            yield number, text


def module(file: pathlib.Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".rs")


def list_lines(what: str) -> None:
    """Prints the lines that count against `what`: a kind, or all kinds with a limit in a folder of src/; else a word."""
    folder = (SOURCE / what.removeprefix("src/")).with_suffix("")
    in_folder = folder.is_dir() or folder.with_suffix(".rs").is_file()
    if in_folder:
        patterns = [KINDS[kind] for kind in AT_MOST]
    else:
        patterns = [KINDS.get(what) or re.compile(rf"\b{re.escape(what)}\b", re.IGNORECASE)]
    for file in sorted(SOURCE.rglob("*.rs")):
        if in_folder and folder not in file.with_suffix("").parents and file.with_suffix("") != folder:
            continue
        for number, text in comments(file):
            if any(pattern.search(text) for pattern in patterns):
                print(f"{file.relative_to(SOURCE.parent)}:{number}: {text}")


def print_row(name: str, count: Count) -> None:
    rates = "".join(f"{count.rate(kind):9.2f}" for kind in KINDS)
    print(f"{name:12}{count.words:8}{rates}")


def measure() -> list[str]:
    """Prints the table; returns the limits that are passed."""
    modules: dict[str, Count] = {}
    whole = Count()
    for file in sorted(SOURCE.rglob("*.rs")):
        for _, text in comments(file):
            whole.add(text)
            modules.setdefault(module(file), Count()).add(text)
    print(f"{'':12}{'words':>8}" + "".join(f"{kind:>9}" for kind in KINDS))
    for name, count in modules.items():
        print_row(name, count)
    print_row("all", whole)
    rates = {kind: whole.rate(kind) for kind in KINDS}
    high = [f"{kind}: {rates[kind]:.2f}, at most {most}" for kind, most in AT_MOST.items() if rates[kind] > most]
    low = [f"{kind}: {rates[kind]:.2f}, at least {least}" for kind, least in AT_LEAST.items() if rates[kind] < least]
    return high + low


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--list",
        metavar="WORD|KIND|FOLDER",
        help="print the lines instead: those with a word, those of a kind (told, who, opening, returns, must), "
        "or those of a folder or file of src/ that count against a limit",
    )
    arguments = parser.parse_args()
    if arguments.list:
        list_lines(arguments.list)
        return
    passed = measure()
    for limit in passed:
        print(f"prose: {limit}", file=sys.stderr)
    if passed:
        sys.exit("prose: scripts/prose.py --list KIND prints the lines")


if __name__ == "__main__":
    main()
