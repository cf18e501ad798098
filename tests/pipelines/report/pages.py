"""The text and cells of a page, which is read strictly."""

from __future__ import annotations

from html.parser import HTMLParser

VOID = {"meta", "link", "br", "img"}


class Strict(HTMLParser):
    """Checks that elements close in order, and gathers text, attributes and table cells."""

    def __init__(self):
        super().__init__()
        self.open, self.text, self.attributes, self.cells = [], [], [], []

    def handle_starttag(self, tag, attrs):
        self.attributes += attrs
        if tag in {"td", "th"}:
            self.cells.append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.attributes += attrs

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text.append(data)
        if {"td", "th"} & set(self.open):
            self.cells[-1] += data


def parse(page):
    parser = Strict()
    parser.feed(page)
    parser.close()
    assert parser.open == []
    return parser
