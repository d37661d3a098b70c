#!/usr/bin/env python3
"""Draws what a terminal shows, as `tmux capture-pane -e -p` prints it, as an SVG.

    screen_svg.py COLUMNS <screen >picture.svg

Every cell has its place, whatever font there is; the blocks of charts are rectangles, so that they join.
"""

import html
import re
import sys

CELL, LINE, SIZE = 8.4, 18, 14
BACKGROUND, TEXT = "#101418", "#d8dee4"
COLOURS = ["#39424c", "#ff7b72", "#5ec46b", "#e3b341", "#6cb6ff", "#d2a8ff", "#56c8d8", "#d8dee4"]
BRIGHT = ["#768390", "#ff938a", "#7ee08c", "#f2cc60", "#91cbff", "#e2c5ff", "#7fe0ee", "#ffffff"]
BLOCKS = " ▁▂▃▄▅▆▇█"


class Style:
    """What select graphic rendition has set (ECMA-48, 8.3.117)."""

    def __init__(self):
        self.reset()

    def reset(self):
        self.colour, self.bold, self.dim, self.reversed = TEXT, False, False, False

    def apply(self, codes):
        codes = list(codes or [0])
        while codes:
            code = codes.pop(0)
            if code == 38 and codes[:1] == [5] and len(codes) > 1 and codes[1] < 16:
                self.colour = (COLOURS + BRIGHT)[codes[1]]
                del codes[:2]
            elif code == 0:
                self.reset()
            elif code == 1:
                self.bold = True
            elif code == 2:
                self.dim = True
            elif code == 22:
                self.bold = self.dim = False
            elif code == 7:
                self.reversed = True
            elif code == 27:
                self.reversed = False
            elif 30 <= code <= 37:
                self.colour = COLOURS[code - 30]
            elif 90 <= code <= 97:
                self.colour = BRIGHT[code - 90]
            elif code == 39:
                self.colour = TEXT
            elif code not in (49, 23, 24):
                sys.exit(f"screen_svg: a rendition that is not known: {code}")

    def key(self):
        return self.colour, self.bold, self.dim, self.reversed


def cells(line, style):
    """Yields each character of a line with its rendition."""
    for escape, char in re.findall(r"\x1b\[([0-9;]*)m|(.)", line):
        if char:
            yield char, style.key()
        else:
            style.apply([int(code or 0) for code in escape.split(";")])


def runs(row):
    """Yields neighbours of one rendition together: their column, text and rendition."""
    start = 0
    for at in range(1, len(row) + 1):
        if at == len(row) or row[at][1] != row[start][1]:
            yield start, "".join(char for char, _ in row[start:at]), row[start][1]
            start = at


def draw(row, top):
    for column, text, (colour, bold, dim, is_reversed) in runs(row):
        x = column * CELL + CELL
        if is_reversed:
            width = len(text) * CELL
            yield f'<rect x="{x:.1f}" y="{top:.1f}" width="{width:.1f}" height="{LINE}" fill="{colour}"/>'
            colour = BACKGROUND
        for at, char in enumerate(text):
            if char != " " and char in BLOCKS:
                height = LINE * BLOCKS.index(char) / 8
                place = f'x="{x + at * CELL:.1f}" y="{top + LINE - height:.2f}"'
                yield f'<rect {place} width="{CELL}" height="{height:.2f}" fill="{colour}"/>'
        for word in re.finditer(rf"[^ {BLOCKS[1:]}]+(?: [^ {BLOCKS[1:]}]+)*", text):
            words = word.group()
            look = f'fill="{colour}"'
            look += ' font-weight="bold"' if bold else ""
            look += ' opacity="0.65"' if dim else ""
            place = f'x="{x + word.start() * CELL:.1f}" y="{top + LINE * 0.76:.1f}"'
            width = f'textLength="{len(words) * CELL:.1f}" lengthAdjust="spacingAndGlyphs"'
            yield f"<text {place} {width} {look}>{html.escape(words)}</text>"


def main():
    columns = int(sys.argv[1])
    lines = sys.stdin.read().split("\n")
    while lines and not lines[-1]:
        lines.pop()
    style, parts = Style(), []
    for number, line in enumerate(lines):
        parts += draw(list(cells(line, style)), number * LINE + LINE / 2)
    width, height = (columns + 2) * CELL, (len(lines) + 1) * LINE
    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width:.1f} {height}" width="{width:.0f}" '
          f'height="{height}" font-family="ui-monospace, DejaVu Sans Mono, Menlo, Consolas, monospace" '
          f'font-size="{SIZE}" xml:space="preserve">')
    print(f'<title>l4lb top</title><rect width="100%" height="100%" rx="8" fill="{BACKGROUND}"/>')
    print("\n".join(parts))
    print("</svg>")


main()
