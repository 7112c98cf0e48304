"""Photographs the report page of the demo pair on LLMBar, for docs/images.

python scripts/screenshots.py          # labels, writes the page, photographs it
python scripts/screenshots.py PAGE     # photographs a page that is there

Needs Chromium and its driver, which scripts/install_pages.sh installs, and minutes for the models.
"""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
sys.path.insert(0, str(ROOT / "tests"))

from helpers.browser import Browser, browser  # noqa: E402

from drsow_plugin.cli import main as main_command  # noqa: E402

PAIR = ["--strong", "demo", "--weak", "demo", "--weak-template", "none"]
WIDTH = 1180
SURPRISING = (
    "const rows = JSON.parse(document.getElementById('data').textContent).rows"
    ".filter(row => row.a.every(answer => answer.k && answer.k.p.length < 90));"
    "rows.sort((a, b) => (b.u || 0) - (a.u || 0)); return rows[0].id"
)


def demo_page(folder: Path) -> Path:
    """Label the first 256 pairs of LLMBar with the demo pair, and write the page."""
    labelled, page = folder / "labelled", folder / "report.html"
    rows = [str(ROOT / "tasks" / "llmbar.jsonl"), str(labelled), "--limit", "256"]
    main_command(["annotate", *rows, "--group-column", "subset", *PAIR], standalone_mode=False)
    shown = ["-o", str(page), "--tokens", "true", "--rows", "32", "--rule", "mixed"]
    main_command(["report", str(labelled), *shown], standalone_mode=False)
    return page


def photograph(opened: Browser, name: str, height: int) -> None:
    """Save what is on the screen, as a picture with few colours: a quarter of the size."""
    from PIL import Image

    opened.run("document.activeElement.blur()")
    file = IMAGES / f"report-{name}.png"
    opened.driver.save_screenshot(str(file))
    picture = Image.open(file).convert("RGB").crop((0, 0, WIDTH, height))
    picture.quantize(128, dither=Image.Dither.NONE).save(file, optimize=True)
    print(f"{file.relative_to(ROOT)}: {file.stat().st_size / 1000:.0f} kB")


def main() -> None:
    """Photograph the page in both schemes, and a row of it."""
    page = Path(sys.argv[1]) if len(sys.argv) > 1 else demo_page(ROOT / "out" / "report")
    IMAGES.mkdir(exist_ok=True)
    with browser() as opened:
        for name, dark in (("light", False), ("dark", True)):
            opened.open(page, width=WIDTH, height=1900, dark=dark)
            height = int(opened.run("return document.documentElement.scrollHeight"))
            photograph(opened, name, min(height, 1900))
        row = opened.run(SURPRISING)
        opened.open(page, f"#row={row}", width=WIDTH, height=1000)
        photograph(opened, "row", 1000)


if __name__ == "__main__":
    main()
