"""A page in a real browser: headless Chromium, told by a script what to do, and heard by what the page then holds."""

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

PROGRAM = "chromium"
SECONDS = 120
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--virtual-time-budget=5000"),
)


def is_missing() -> bool:
    """Whether there is no Chromium here."""
    return shutil.which(PROGRAM) is None


def told_by(page: Path, script: str, width: int, folder: Path) -> dict[str, Any]:
    """What a script of the tests says of a page of such a width; it has the page's own behind it.

    Args:
        script: its last expression is the answer, in plain values.

    Returns:
        the answer as `said`, and whatever went wrong in the page as `errors`.
    """
    text = page.read_text(encoding="utf-8")
    first = "<script>window.faults = []; addEventListener('error', e => faults.push(String(e.message)), true);</script>"
    last = (
        "<script>addEventListener('load', async () => { let said; try { said = await (async () => {"
        f"{script}}})(); }} catch (e) {{ faults.push(String(e)); }} const told = document.createElement('pre'); "
        "told.id = 'told'; told.textContent = JSON.stringify({said, errors: faults}); document.body.append(told); });"
        "</script>"
    )
    own = folder / f"page-{width}.html"
    own.write_text(
        text.replace("<head>", f"<head>{first}", 1).replace("</body>", f"{last}</body>", 1), encoding="utf-8"
    )
    command = [PROGRAM, *FLAGS, f"--user-data-dir={folder / 'profile'}", f"--window-size={width},900", "--dump-dom"]
    done = subprocess.run(
        [*command, own.as_uri()], capture_output=True, text=True, timeout=SECONDS, check=True, stdin=subprocess.DEVNULL
    )
    found = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, flags=re.DOTALL)
    assert found, done.stdout[-2000:] + done.stderr[-2000:]
    told = found[1].replace("&amp;", "&").replace("&lt;", "<").replace("&gt;", ">")
    return json.loads(told)
