"""A Django application with the console in it, as docs/console.md has it; served by a process of its own."""

from __future__ import annotations

from django.conf import settings
from django.core.asgi import get_asgi_application
from django.http import HttpRequest, HttpResponse
from django.urls import path
from starlette.applications import Starlette
from starlette.routing import Mount

from gravito.horizon import Horizon


def home(request: HttpRequest) -> HttpResponse:
    """A page of Django's own."""
    return HttpResponse(f"Django at {request.path}")


urlpatterns = [path("", home), path("shop/", home)]
settings.configure(ROOT_URLCONF=__name__, ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="only for this test")
django_application = get_asgi_application()

horizon = Horizon()
console = horizon.console()
application = Starlette(routes=[Mount("/horizon", console), Mount("/", django_application)])
