"""The site's links to what lies outside of docs/, so that a page's links work on GitHub and on the site alike.

A page links to ../README.md or ../examples/itd3.py by its place in the repository. A site has docs/ alone, so each such
file joins it under repository/, and its links are turned there.
"""

import posixpath
import re
from pathlib import Path

from mkdocs.structure.files import File

ROOT = Path(__file__).resolve().parents[1]
LINK = re.compile(r"(\[[^\]]*\]\()([^)\s#:]+)((?:#[^)\s]*)?\))")


def page_of(path: str) -> str:
    """The site's page for a file of the repository."""
    return path.removeprefix("docs/") if path.startswith("docs/") else f"repository/{path}"


def file_of(page: str) -> str:
    """The file of the repository behind a page of the site."""
    return page.removeprefix("repository/") if page.startswith("repository/") else f"docs/{page}"


def target(page: str, link: str) -> str:
    """The file of the repository that a page's link leads to."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(file_of(page)), link))


def on_files(files, config):
    todo = [file.src_uri for file in files.documentation_pages()]
    while todo:
        page = todo.pop()
        for _, link, _ in LINK.findall((ROOT / file_of(page)).read_text()):
            path = target(page, link)
            if (ROOT / path).is_file() and files.get_file_from_path(page_of(path)) is None:
                files.append(File.generated(config, page_of(path), abs_src_path=str(ROOT / path)))
                todo += [page_of(path)] if path.endswith(".md") else []
    return files


def on_page_markdown(markdown, page, config, files):
    here = posixpath.dirname(page.file.src_uri)

    def turned(match):
        before, link, after = match.groups()
        return f"{before}{posixpath.relpath(page_of(target(page.file.src_uri, link)), here)}{after}"

    return LINK.sub(turned, markdown)
