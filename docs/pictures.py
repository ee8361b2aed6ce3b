"""Makes the pictures of README.md from a real run, in which one scenario fails.

::

    ./run exec pip install rich          # and Debian's chromium-driver
    ./run exec python docs/pictures.py
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

from rich.console import Console
from rich.text import Text
from selenium import webdriver
from selenium.webdriver.common.by import By

HERE = Path(__file__).parent
COLUMNS = 112
"""Of the terminal."""
RULE = "ip daddr $web tcp dport { 80, 443 } accept"
OPENED = f'{RULE}\n\t\tip daddr $web tcp dport 22 accept comment "for now"'
"""What happens to the edge router's ruleset: one port more is opened."""


def main() -> None:
    """Write failure.svg and report.png beside this file."""
    with TemporaryDirectory() as folder:
        shutil.copytree(HERE.parent / "scenarios", scenarios := Path(folder, "scenarios"))
        ruleset = scenarios / "rulesets/edge.nft"
        assert RULE in ruleset.read_text()
        ruleset.write_text(ruleset.read_text().replace(RULE, OPENED))
        said = pytest(folder, "scenarios/edge.yaml", "--nft-html", "report.html", "--color", "yes")
        failure = said[(start := said.index("scenarios/edge.yaml:")) : said.index("\nnft-harness: ", start)]
        terminal(failure, HERE / "failure.svg")
        browser(Path(folder, "report.html"), HERE / "report.png")


def pytest(folder: str, *arguments: str) -> str:
    """What a run of pytest with a failure says."""
    command = ["env", f"COLUMNS={COLUMNS}", sys.executable, "-m", "pytest", *arguments]
    run = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert run.returncode == 1, run.stdout + run.stderr
    return run.stdout


def terminal(text: str, picture: Path) -> None:
    """Draw what a terminal would show."""
    console = Console(record=True, width=COLUMNS, file=io.StringIO())
    console.print(Text.from_ansi(text))
    svg = console.export_svg(title="pytest scenarios/")
    picture.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL))  # they are on a server


def browser(page: Path, picture: Path) -> None:
    """Photograph the report with the failed scenario opened."""
    options = webdriver.ChromeOptions()
    for option in ("--headless=new", "--no-sandbox", "--window-size=1200,1150", "--hide-scrollbars"):
        options.add_argument(option)
    service = webdriver.ChromeService(executable_path=shutil.which("chromedriver"))
    with webdriver.Chrome(options=options, service=service) as chromium:
        chromium.get(page.as_uri())
        failed = chromium.find_element(By.CSS_SELECTOR, "details[data-outcome=failed]")
        chromium.execute_script("arguments[0].open = true; arguments[0].scrollIntoView()", failed)
        chromium.save_screenshot(str(picture))


if __name__ == "__main__":
    main()
