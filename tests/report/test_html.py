"""The page for the browser: what stands in it, and how it behaves in Chromium."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import msgspec
import pytest

from harness.errors import Position
from harness.model.result import Result
from harness.report import html

Make = Callable[..., Result]
EVIL = '</script><img src=x onerror=alert(1)> "quoted" & \x1b[31mred'


class Page(HTMLParser):
    """The text of a page, and what it refers to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.links: list[str] = []
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            if name == "id":
                self.ids.append(value or "")
            if name in ("href", "src"):
                self.links.append(value or "")

    def handle_data(self, data: str) -> None:
        self.text += data


def test_everything_of_a_scenario_is_in_the_page(make_result: Make) -> None:
    page = Page(html.render([make_result(), make_result("SSH is kept out", accepted=False, outcome="failed", line=9)]))
    for words in (
        "2 scenarios",
        "1 failed",
        "client 203.0.113.5:40000 → server 10.0.2.2:443 tcp S (IPv4, 40 bytes)",
        "delivered to server",
        "tcp dport 443 accept",
        "rulesets/edge.nft:5",
        "policy drop",
        "nft_do_chain inet edge forward → drop",
        "Lost 0 of 7 events",
        "functions by kprobe.multi on Linux 6.12.1",
        "# nobody tries",
    ):
        assert words in page.text, words


def test_the_page_needs_nothing_else(make_result: Make) -> None:
    page = Page(html.render([make_result(), make_result(kernel="7.2")]))
    assert all(link.startswith("#") for link in page.links)
    assert {link[1:] for link in page.links} <= set(page.ids)
    assert len(page.ids) == len(set(page.ids))
    assert not {"link", "img", "iframe"} & set(page.tags)


def test_no_name_can_be_markup_or_move_a_cursor(make_result: Make) -> None:
    one = make_result(EVIL, message=EVIL, outcome="failed")
    assert one.ruleset is not None
    texts = {"rulesets/edge.nft": EVIL * 3}
    text = html.render([msgspec.structs.replace(one, ruleset=msgspec.structs.replace(one.ruleset, texts=texts))])
    page = Page(text)
    assert "img" not in page.tags
    assert page.tags.count("script") == 2
    assert "\x1b" not in text
    assert '</script><img src=x onerror=alert(1)> "quoted" & \\x1b[31mred' in page.text


def test_a_scenario_that_never_ran_is_shown(make_result: Make) -> None:
    bare = make_result(
        outcome="error", message="scenarios/edge.yaml:3: wrong", sent=(), ruleset=None, lab=None, kernel=""
    )
    assert "scenarios/edge.yaml:3: wrong" in Page(html.render([bare])).text
    assert "0 scenarios" in Page(html.render([])).text


def test_kernels_stand_side_by_side(make_result: Make) -> None:
    page = Page(html.render([make_result(kernel="6.1"), make_result(kernel="7.2", outcome="failed")]))
    assert "Kernels side by side" in page.text
    assert "Kernels side by side" not in Page(html.render([make_result()])).text


def test_a_thousand_scenarios_are_written_in_time_and_space(tmp_path: Path, make_result: Make) -> None:
    one = make_result()
    packet = one.sent[0].seen
    long = msgspec.structs.replace(packet, hops=tuple(hop for hop in packet.hops for _ in range(20)))
    sent = msgspec.structs.replace(
        one.sent[0], observation=msgspec.structs.replace(one.sent[0].observation, packets=(long,))
    )
    results = [make_result(f"scenario {number}", sent=(sent,), line=number) for number in range(1000)]
    started = time.monotonic()
    (tmp_path / "report.html").write_text(html.render(results))
    assert time.monotonic() - started < 10  # 3 on a machine that has nothing else to do
    assert (tmp_path / "report.html").stat().st_size < 10_000_000


# --- in the browser ------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(program: Callable[[str, str], str]) -> Iterator[Any]:
    programs = [program("chromium", "chromium"), program("chromedriver", "chromium-driver")]
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    options = webdriver.ChromeOptions()
    options.binary_location = programs[0]
    for argument in ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=webdriver.ChromeService(programs[1]))
    yield driver
    driver.quit()


def shown(browser: Any) -> list[str]:
    cards = browser.find_elements("css selector", "main .card")
    return [card.get_attribute("id") for card in cards if card.is_displayed()]


def test_search_filter_and_links_work(browser: Any, tmp_path: Path, make_result: Make) -> None:
    from selenium.webdriver.support.select import Select
    from selenium.webdriver.support.wait import WebDriverWait

    results = [
        make_result(EVIL),
        make_result("SSH is kept out", accepted=False, outcome="failed", line=9),
        make_result("HTTPS on another kernel", kernel="7.2", line=12),
    ]
    (tmp_path / "report.html").write_text(html.render(results))
    browser.get((tmp_path / "report.html").as_uri())
    assert shown(browser) == ["r0", "r1", "r2"]
    assert browser.find_element("css selector", "#r1").get_attribute("open"), "a failure is open in a short report"

    browser.find_element("css selector", "body").send_keys("/policy drop")
    assert browser.switch_to.active_element.get_attribute("id") == "search"
    assert shown(browser) == ["r1"]
    assert browser.find_element("id", "shown").text == "1 of 3 shown"
    browser.find_element("id", "search").clear()
    browser.find_element("id", "search").send_keys("443")
    assert shown(browser) == ["r0", "r2"]
    Select(browser.find_element("id", "kernel")).select_by_visible_text("7.2")
    assert shown(browser) == ["r2"]

    browser.find_element("css selector", "#r2 > summary").click()
    drawn = WebDriverWait(browser, 5).until(lambda page: page.find_elements("css selector", "#r2 .visit"))
    visits = [visit.text.splitlines()[0] for visit in drawn]
    assert visits == ["client eth0, 1 function", "device wan0 → lan0, 5 functions", "server eth0, 1 function"]
    assert "nft_do_chain inet edge forward → accept" in browser.find_element("css selector", "#r2 .visit.device").text
    link = browser.find_element("css selector", "#r2 td a")
    assert link.text == "rulesets/edge.nft:5"
    link.click()
    line = browser.find_element("css selector", "tr:target")
    assert line.is_displayed()
    assert "tcp dport 443 accept" in line.text
    assert browser.get_log("browser") == []


def test_a_thousand_scenarios_are_usable_soon(browser: Any, tmp_path: Path, make_result: Make) -> None:
    results = [make_result(f"scenario {number}", line=number) for number in range(1000)]
    (tmp_path / "report.html").write_text(html.render(results))
    started = time.monotonic()
    browser.get((tmp_path / "report.html").as_uri())
    browser.find_element("id", "search").send_keys("999")
    assert browser.find_element("id", "shown").text == "1 of 1000 shown"
    assert time.monotonic() - started < 10  # 2 on a machine that has nothing else to do


def test_a_failure_begins_with_what_was_expected_and_seen(make_result: Make) -> None:
    one = make_result(outcome="failed", message="reported in the terminal")
    sent = msgspec.structs.replace(one.sent[0], advice=("add a rule",))
    page = Page(html.render([msgspec.structs.replace(one, sent=(sent,))]))
    found = [page.text.index(words) for words in ("expect.verdict", "add a rule", "Chains and rules")]
    assert found == sorted(found)


def test_kernels_that_differ_stand_first(make_result: Make) -> None:
    results = [
        make_result(name, kernel=kernel, line=line, accepted=accepted)
        for line, name in enumerate(("alike", "different"))
        for kernel, accepted in (("6.1", True), ("7.2", name == "alike"))
    ]
    page = Page(html.render(results))
    text = page.text
    assert page.links.count("#r0") == 2, "from the table, and from the other kernel's"
    assert text.index("different") < text.index("1 more ended alike on all of them") < text.index("alike", 900)


def test_a_line_that_was_met_in_part_says_so(make_result: Make) -> None:
    one = make_result()
    assert one.ruleset is not None
    rules = [
        msgspec.structs.replace(rule, position=Position("rulesets/edge.nft", 4, rule.handle))
        for rule in one.ruleset.rules
    ]
    page = html.render([msgspec.structs.replace(one, ruleset=msgspec.structs.replace(one.ruleset, rules=tuple(rules)))])
    assert re.search(r'<span class="part" title="[^"]*">1. in part<', page)


def test_a_page_has_the_packets_of_what_went_wrong_first(make_result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "PACKETS", 3)
    several = msgspec.structs.replace(make_result("several", line=1), sent=make_result().sent * 3)
    failed = make_result("failed", outcome="failed", accepted=False, line=9)
    page = Page(text := html.render([several, make_result("hidden", line=5), failed]))
    assert text.count("data-way=") == 3
    assert text.count("1 more packet of this scenario: this page has 3 packets at most") == 1
    assert text.count("1 packet of this scenario: this page has 3 packets at most") == 1
    assert "expect.verdict" in page.text
    assert {link[1:] for link in page.links} <= set(page.ids)


def test_of_many_packets_those_that_differ_are_shown(make_result: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(html, "PACKETS", 2)
    (met,), (unmet,) = make_result().sent, make_result(accepted=False, outcome="failed").sent
    sent = (*[met] * 9, msgspec.structs.replace(unmet, action=9))
    page = Page(html.render([msgspec.structs.replace(make_result(outcome="failed"), sent=sent)]))
    assert "Step 1: " in page.text
    assert "Step 10: " in page.text
    assert "expect.verdict" in page.text


def test_a_rule_names_some_of_the_scenarios_that_met_it(make_result: Make) -> None:
    page = html.render([make_result(f"scenario {number:02}", line=number) for number in range(50)])
    assert re.search(r'title="[^"]*scenario 19; and 30 more"', page)
