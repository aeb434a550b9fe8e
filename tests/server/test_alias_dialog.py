"""MLflow's alias dialog in a real browser: what the gate says is what the person reads who asked."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from asked_repository import asked_template  # noqa: F401 - a fixture
from gated_server import ServedWorld, Server, gated_server, served, served_template  # noqa: F401 - fixtures
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from selenium.webdriver import Chrome, ChromeOptions, ChromeService
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.expected_conditions import element_to_be_clickable
from selenium.webdriver.support.ui import WebDriverWait

from mlflow_unlearn.lineage import ModelVersion

CHROMIUM, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no chromium and chromedriver on this machine; .ci/run installs Debian's"),
]
ADD, NAMES = "button[data-component-id*=modelversionviewaliaseditor]", "[role=dialog] input"
SAVE = "[data-component-id='mlflow.edit-aliases-modal.save-button']"


@pytest.fixture(scope="module")
def browser() -> Iterator[Chrome]:
    options = ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for each in ("--headless=new", "--window-size=1400,1000", "--disable-dev-shm-usage", *(["--no-sandbox"] if os.geteuid() == 0 else [])):
        options.add_argument(each)
    driver = Chrome(options=options, service=ChromeService(DRIVER))
    yield driver
    driver.quit()


def seen(browser: Chrome, selector: str) -> WebElement:
    found: WebElement = WebDriverWait(browser, 20, poll_frequency=0.05).until(element_to_be_clickable((By.CSS_SELECTOR, selector)))
    return found


def ask(browser: Chrome, server: Server, model: ModelVersion, alias: str) -> None:
    """What a person does who wants an alias to point at a version."""
    browser.get("about:blank")  # so that the next page is a new one: addresses of MLflow's differ after the # alone
    browser.get(f"{server.uri}/#/models/{model}".replace("m/", "m/versions/"))
    seen(browser, ADD).click()
    seen(browser, NAMES).send_keys(alias, Keys.ENTER)
    seen(browser, SAVE).click()


def test_the_dialog_shows_why_a_version_without_evidence_gets_no_protected_alias_and_what_to_do(
    browser: Chrome,
    gated_server: Server,  # noqa: F811
    served: ServedWorld,  # noqa: F811
    tmp_path: Path,
) -> None:
    model = served.version(3.0, served.state())
    with pytest.raises(MlflowException, match="PERMISSION_DENIED") as told:
        MlflowClient().set_registered_model_alias("m", "champion", model.version)
    ask(browser, gated_server, model, "champion")
    shown = seen(browser, "[role=dialog] [role=alert]").text
    browser.save_screenshot(str(tmp_path / "refused.png"))
    assert " ".join(str(told.value).removeprefix("PERMISSION_DENIED: ").split()) in " ".join(shown.split())
    assert MlflowClient().get_registered_model("m").aliases == {}


def test_the_same_dialog_lets_a_version_with_a_certificate_have_it(browser: Chrome, gated_server: Server, served: ServedWorld) -> None:  # noqa: F811
    ask(browser, gated_server, ModelVersion(name="m", version="2"), "champion")
    WebDriverWait(browser, 20, poll_frequency=0.05).until(lambda page: not page.find_elements(By.CSS_SELECTOR, "[role=dialog]"))
    assert MlflowClient().get_registered_model("m").aliases == {"champion": "2"}
