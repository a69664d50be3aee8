"""The site is built of the pages, and no link of it leads nowhere."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    site = tmp_path / "site"
    commands = (site / "reference/terminal/index.html").read_text(encoding="utf-8")
    assert all(
        f">{name}" in commands for name in ("gravito doctor", "gravito horizon work", "gravito cache stats")
    )
    assert "<td><code>--json</code></td>" in commands
    atlas = (site / "reference/atlas/index.html").read_text(encoding="utf-8")
    assert "seconds; the upper end of the first wait" in atlas  # of a struct's field
    pages = {path.relative_to(ROOT / "docs") for path in (ROOT / "docs").rglob("*.md")}
    assert pages
    for page in pages:
        shown = page.with_suffix("") if page.name != "index.md" else page.parent
        assert (site / shown / "index.html").exists(), page
