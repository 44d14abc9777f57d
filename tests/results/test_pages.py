"""Pages: the same blocks as Markdown and as one HTML file that needs nothing else."""

import base64
import html.parser

from rltrain.results import pages
from rltrain.results.pages import Code, Heading, Items, Picture, Table, Text

BLOCKS = [
    Heading("Title <1>", 1),
    Text("a | b & <script>alert(1)</script>\x1b[31m"),
    Items(["one", "two"]),
    Code("rltrain report 'a b'"),
    Table(["group", "n"], [["a|b", "5"], ["c" * 40, "6"]], ["group"]),
    Picture("curves", "What is drawn"),
]


def test_markdown():
    text = pages.as_markdown(BLOCKS)
    assert "# Title \\<1\\>\n" in text
    assert "a \\| b & \\<script\\>alert(1)\\</script\\>" in text and "\x1b" not in text
    assert "| group | n |\n|---|---:|\n| a\\|b | 5 |\n" in text
    assert "![What is drawn](curves.png)" in text and "- one\n- two" in text and "```\nrltrain report 'a b'\n```" in text


class Reader(html.parser.HTMLParser):
    """Collects tags, addresses and text."""

    def __init__(self):
        super().__init__()
        self.tags, self.addresses, self.text = [], [], ""

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.addresses += [value for key, value in attributes if key in ("src", "href")]

    def handle_data(self, data):
        self.text += data


def test_html_is_one_file_without_scripts():
    page = pages.as_html(BLOCKS, {"curves.svg": b"<svg/>"}, "Title <1>")
    reader = Reader()
    reader.feed(page)
    assert reader.addresses == ["data:image/svg+xml;base64," + base64.b64encode(b"<svg/>").decode()]
    assert "script" not in reader.tags and "link" not in reader.tags and "http" not in page and "@import" not in page
    assert "a | b & <script>alert(1)</script>" in reader.text and "\x1b" not in page
    assert [reader.tags.count(tag) for tag in ("h1", "li", "tr", "td", "figure")] == [1, 2, 3, 4, 1]
    assert "prefers-color-scheme: dark" in page and "width=device-width" in page
