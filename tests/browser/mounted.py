"""The same console below another application, for a name and a password."""

from __future__ import annotations

from fastapi import FastAPI
from tests.browser.application import horizon

from gravito.horizon.console import Basic

site = FastAPI()
site.mount("/ops/horizon", horizon.console(auth=Basic("ada", "love-lace"), title="Shop's work"))
