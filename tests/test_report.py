"""A page that is well formed, loads nothing, and shows hostile names as what they are."""

import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
import torch

from advrad import files
from advrad.errors import UsageError
from advrad.evaluate.pictures import colour_bar, thumbnail
from advrad.evaluate.report import Fact, Inspection, Picture, Report, Scale, escape

VOID = {"meta", "img", "br", "link", "input", "hr"}
HOSTILE = (
    "</title></style><script>alert('1')</script>\" onerror=\"x\x00\x1b\u202egnp.exe\udcff\ufffe"
)


class Page(HTMLParser):
    """Every element with its attributes; refuses what is not closed in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(page)
        self.close()
        assert not self.open, f"never closed: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert len(dict(attrs)) == len(attrs), f"an attribute twice in {tag}"
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def picture(words: str = "a picture") -> Picture:
    return Picture(thumbnail(torch.rand(3, 8, 8)), words, words)


def full(words: str) -> Report:
    """A report in which everything that takes words has these."""
    report = Report(words, words, words)
    report.facts([Fact(words, words, words), Fact("AUROC", 0.98765), Fact("PRO", None)])
    report.heading(words)
    report.text(words)
    report.figures([picture(words), Picture(b"<?xml version='1.0'?><svg/>", words)])
    report.heading("second")
    report.table(words, ["name", words, "count"], [(words, 0.5, 3), ("b", None, 4)])
    row = Inspection(words, words, 0.123456, [picture(words)], words, words)
    report.gallery([row, row], Scale(Picture(colour_bar(), words, words), words, words))
    report.settings(words, {words: words, "list": [1, 2]})
    return report


@pytest.mark.parametrize("words", ["plain", HOSTILE, "größe 部品 👍", ""])
def test_whatever_the_words_the_page_is_well_formed(words: str) -> None:
    page = Page(full(words).html())
    kinds = [tag for tag, _ in page.elements]
    assert kinds == [tag for tag, _ in Page(full("x").html()).elements] or words == ""
    assert kinds.count("h1") == kinds.count("main") == kinds.count("title") == 1


def test_hostile_words_are_shown_and_not_obeyed() -> None:
    text = full(HOSTILE).html()
    page = Page(text)
    assert not page.all("script")
    assert not any(name.startswith("on") for _, attributes in page.elements for name in attributes)
    assert re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\ud800-\udfff\ufffe]", text) is None
    assert "\\u202egnp.exe\\udcff\\ufffe" in "".join(page.words)
    assert "<script>alert('1')</script>" in "".join(page.words)


def test_the_page_loads_nothing() -> None:
    text = full("x").html()
    page = Page(text)
    sources = [value for _, attributes in page.elements for name, value in attributes.items()
               if name in ("src", "href", "srcset", "action", "data")]  # fmt: skip
    assert sources
    assert all(value and value.startswith(("data:image/", "#")) for value in sources)
    assert "url(" not in text
    assert "@import" not in text
    policy = next(each for each in page.all("meta") if "http-equiv" in each)
    assert policy["content"] == "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def test_it_can_be_read_without_seeing() -> None:
    page = Page(full("words").html())
    assert all(image["alt"] for image in page.all("img"))
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("caption")) == 1
    assert {cell["scope"] for cell in page.all("th")} == {"col", "row"}
    links = [link["href"] for link in page.all("a")]
    assert links == [f"#{heading['id']}" for heading in page.all("h2")]


def test_cells_show_numbers_flush_right_and_what_is_missing() -> None:
    report = Report("t", "f")
    report.table("c", ["depth", "auroc", "note"], [(25, 0.98765432, "x"), (50, None, "y")])
    text = report.html()
    assert '<th scope="col" class="number">auroc</th>' in text
    assert '<td class="number">0.9877</td>' in text
    assert '<td class="number"><span title="not available">n/a</span></td>' in text
    assert "<td>x</td>" in text
    assert '<th scope="row"><bdi>25</bdi></th>' in text


def test_the_finding_opens_the_page() -> None:
    words = [word.strip() for word in Page(full("x").html()).words if word.strip()]
    report = Report("the title", "One sentence that says what was found.")
    words = [word.strip() for word in Page(report.html()).words if word.strip()]
    assert words[0] == "the title"
    assert words[2:4] == ["the title", "One sentence that says what was found."]


def test_a_long_gallery_is_cut_and_says_so() -> None:
    report = Report("t", "f")
    report.gallery([Inspection(f"image {at}", "OK", 1.0, []) for at in range(30)], limit=5)
    text = report.html()
    assert text.count("<li>") == 5
    assert "5 of 30 images are shown." in text


@pytest.mark.parametrize(
    ("verdict", "kind"), [("OK", "ok"), ("NG", "ng"), ("UNSURE", "unsure"), ("x y", "unsure")]
)
def test_a_verdict_has_its_colour_and_its_word(verdict: str, kind: str) -> None:
    report = Report("t", "f")
    report.gallery([Inspection("a", verdict, float("nan"), [])])
    assert f'<span class="badge {kind}">{verdict}</span>' in report.html()
    assert "score nan" in report.html()


def test_what_cannot_be_shown_is_refused() -> None:
    report = Report("t", "f")
    with pytest.raises(UsageError, match="2 cells"):
        report.table("c", ["a", "b"], [(1, 2), (1, 2, 3)])
    with pytest.raises(UsageError, match="not PNG, JPEG or SVG"):
        report.figures([Picture(b"GIF89a", "moving")])


def test_paragraphs_and_escapes() -> None:
    report = Report("t", "f")
    report.text("one\nline\n\ntwo")
    assert "<p>one line</p>\n<p>two</p>" in report.html()
    assert escape("a&b<c>'\"") == "a&amp;b&lt;c&gt;&#x27;&quot;"


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "deep" / "report.html"
    full(HOSTILE).write(path)
    before = path.read_bytes()
    assert before.decode().startswith("<!DOCTYPE html>")

    def torn(*_: object) -> None:
        raise OSError(5, "torn")

    monkeypatch.setattr(files.os, "replace", torn)
    with pytest.raises(OSError, match="torn"):
        Report("other", "other").write(path)
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
