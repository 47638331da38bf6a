"""The pages that people read: links lead somewhere, guarantees name the tests behind them, codes are explained."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from guarantees import named_guarantees

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
GUARANTEES = sorted(ROOT.glob("docs/guarantees/*.md"))
_LINK = re.compile(r"\]\((?!https?://|mailto:)([^)#\s]*)(?:#([^)\s]+))?\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CODE = re.compile(r"""(?:StopError\(|Defect\(|code=)\s*"([A-Z_]+)\"""")


def anchors(page: Path) -> set[str]:
    """What a link may name in *page*, as Git hosts make it from the headings."""
    text = _FENCE.sub("", page.read_text())
    headings = re.findall(r"^#+ +(.+?) *$", text, re.MULTILINE)
    named = (re.sub(r"[^\w\- ]", "", re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", each)).lower() for each in headings)
    return {each.replace(" ", "-") for each in named}


@pytest.mark.parametrize("page", PAGES, ids=lambda each: str(each.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    """Every relative link names a file that is there, and a heading in it."""
    for target, anchor in _LINK.findall(_FENCE.sub("", page.read_text())):
        found = (page.parent / target).resolve() if target else page
        assert found.exists(), f"{page.name}: {target}"
        if anchor and found.suffix == ".md":
            assert anchor in anchors(found), f"{page.name}: {target}#{anchor}"


def test_each_guarantee_has_its_page() -> None:
    """One page for each that the README promises."""
    assert {each.read_text().partition("\n")[0].removeprefix("# ") for each in GUARANTEES} == set(named_guarantees())


@pytest.mark.parametrize("page", GUARANTEES, ids=lambda each: each.stem)
def test_the_tests_behind_a_guarantee_are_there(page: Path) -> None:
    """What, how, where it ends; and each test that is named carries the guarantee's mark."""
    text = page.read_text()
    title = text.partition("\n")[0].removeprefix("# ")
    for part in ("What", "How", "Where it ends", "Which test"):
        assert f"**{part}.**" in text
    named = re.findall(r"`(tests/[\w/]+\.py)`", text.partition("**Which test.**")[2])
    assert named
    for each in named:
        assert f'guarantee("{title}")' in (ROOT / each).read_text(), f"{each} does not prove {title!r}"


def test_every_code_is_explained() -> None:
    """A stop says its code; the reference says what it means."""
    explained = "".join((ROOT / "docs/reference" / each).read_text() for each in ("stops.md", "consumer.md"))
    sources = [*ROOT.glob("stream_app/**/*.py"), *ROOT.glob("rowcast/**/*.py")]
    codes = {code for each in sources for code in _CODE.findall(each.read_text())}
    assert len(codes) > 10
    assert {each for each in codes if f"`{each}`" not in explained} == set()
