"""The package indexes that pip is set to use, read by their simple API (PEP 503, PEP 691). Nothing is built."""

import base64
import functools
import html.parser
import json
import os
import re
import ssl
import subprocess
import sys
import urllib.error
import urllib.parse
import urllib.request
from http.client import HTTPResponse

_SECONDS = 60
_ACCEPT = "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.1"


def urls() -> list[str]:
    """Return the addresses of pip's indexes, from its files and environment: ``index-url``, then ``extra-index-url``.

    Only those reached by HTTP.
    """
    first = _setting("index-url") or re.findall(r"default\s+(https?://\S+)\)", _pip("download", "--help"))[:1]
    return [url for url in first + _setting("extra-index-url") if url.startswith(("http://", "https://"))]


def links(url: str, package: str) -> dict[str, str]:
    """Return the files of a package in an index, {name: address}; empty if the index does not have the package.

    Raises:
      OSError: the index cannot be reached (urllib.error.URLError), or refuses.
      ValueError: an address or the page is not valid. Its text may have a password in it.
    """
    normal = re.sub(r"[-_.]+", "-", package).lower()
    page = f"{url.rstrip('/')}/{normal}/"
    try:
        with get(page, _ACCEPT) as response:
            content, base, kind = response.read(), response.url, response.headers.get_content_type()
    except urllib.error.HTTPError as e:
        if e.code == 404:
            return {}
        raise
    if kind.endswith("json"):
        try:
            found = {file["filename"]: file["url"] for file in json.loads(content)["files"]}
        except (LookupError, TypeError, AttributeError) as e:
            raise ValueError("no list of files") from e
    else:
        parser = _Links()
        parser.feed(content.decode(errors="replace"))
        found = parser.found
    return {name: _with_login(urllib.parse.urljoin(base, link).partition("#")[0], url) for name, link in found.items()}


def _with_login(link: str, url: str) -> str:
    """Return a link with the login of the index, if it is on the same host."""
    parts, own = urllib.parse.urlsplit(link), urllib.parse.urlsplit(url)
    same = (parts.scheme, parts.hostname, parts.port) == (own.scheme, own.hostname, own.port)
    return urllib.parse.urlunsplit(parts._replace(netloc=own.netloc)) if same else link


def get(url: str, accept: str = "*/*") -> HTTPResponse:
    """Open an address with the certificates that pip is set to use. Proxies are those of the environment.

    A login in the address is sent to its host only, also after redirects.
    """
    context = ssl.create_default_context(cafile=next(iter(_setting("cert")), None))
    opener = urllib.request.build_opener(urllib.request.HTTPSHandler(context=context), _Redirect(url))
    return opener.open(_request(url, accept), timeout=_SECONDS)


def _request(url: str, accept: str) -> urllib.request.Request:
    parts = urllib.parse.urlsplit(url)
    login, _, host = parts.netloc.rpartition("@")
    request = urllib.request.Request(urllib.parse.urlunsplit(parts._replace(netloc=host)), headers={"Accept": accept})
    if login:
        encoded = base64.b64encode(urllib.parse.unquote(login).encode()).decode()
        request.add_unredirected_header("Authorization", f"Basic {encoded}")
    return request


class _Redirect(urllib.request.HTTPRedirectHandler):
    """Follows redirects, with the login of the first address if they stay on its host."""

    def __init__(self, url: str) -> None:
        self._url = url

    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        new = super().redirect_request(req, fp, code, msg, headers, newurl)
        return new and _request(_with_login(new.full_url, self._url), req.get_header("Accept") or "*/*")


class _Links(html.parser.HTMLParser):
    """The links of an HTML page: the text of each, and its address."""

    def __init__(self) -> None:
        super().__init__()
        self.found: dict[str, str] = {}
        self._link: str | None = None

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag == "a":
            self._link = dict(attrs).get("href")

    def handle_data(self, data: str) -> None:
        if self._link and data.strip():
            self.found[data.strip()] = self._link

    def handle_endtag(self, tag: str) -> None:
        if tag == "a":
            self._link = None


@functools.cache
def _settings() -> dict[str, list[str]]:
    """Return pip's settings by section and name, from its environment variables and all its files."""
    lines = re.findall(r"^(\S+)='(.*)'$", _pip("config", "list"), re.M)
    return {key: value.replace("\\n", " ").split() for key, value in lines}


def _setting(name: str) -> list[str]:
    """Return a setting of pip, of the section that takes precedence."""
    settings = _settings()
    return next(
        (settings[key] for s in (":env:", "download", "install", "global") if (key := f"{s}.{name}") in settings), []
    )


def _pip(*arguments: str) -> str:
    """Return what pip prints; empty if it fails, for example because a setting is not set."""
    command = [sys.executable, "-m", "pip", "--no-color", *arguments]
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | {"COLUMNS": "200"})
    return result.stdout if result.returncode == 0 else ""
