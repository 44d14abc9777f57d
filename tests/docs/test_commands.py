"""What the README and the pages tell people to type works.

Blocks in ```bash are commands, one a line: those of rltrain are run, `rltrain train` with dry_run=true, in a directory where
`RUN` and `outputs/latest` are a finished run. Blocks in ```python are run too, one after the other in one program per page; one
whose first line is `# name.py` is written to that file instead, beside the commands. A comment directly before a block changes
that: `<!-- run -->` trains in earnest, `<!-- skip: why -->` leaves the block to the reader. By default only the README's
commands run, and of all others the keys are looked up; -m slow runs every page.
"""

import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from command_line import call

from rltrain.config import is_known_key, schema
from rltrain.config.reference import entries

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted(path for path in (ROOT / "docs").rglob("*.md") if "_build" not in path.parts)]
BLOCK = re.compile(
    r"(?:^<!-- (?P<mark>run|skip: [^\n]+) -->\n)?^```(?P<language>bash|python)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)
FILE = re.compile(r"# (\w+\.py)\n")
GROUPS = {entry.key for entry in entries() if entry.group is None and "." not in entry.key} | {"trust"}
OPEN = re.compile(r"hydra[./]|env\.kwargs\.|agents\.[\w-]+\.(groups|overrides)\.")
OPTIONAL = [
    name
    for name in ("gymnax", "brax", "jaxmarl", "pyarrow", "matplotlib", "Box2D", "cv2", "ale_py")
    if importlib.util.find_spec(name) is None
]


@dataclass(frozen=True)
class Block:
    """Commands or a program, as it stands on a page."""

    language: str
    text: str
    mark: str  # "run", "skip: why" or nothing
    line: int

    @property
    def is_skipped(self) -> bool:
        return self.mark.startswith("skip")

    def commands(self) -> list[list[str]]:
        """Return the words of each command; what follows a pipe or a redirection is left out."""
        found = []
        for line in self.text.splitlines():
            words = shlex.split(line, comments=True)
            end = next((i for i, word in enumerate(words) if word in ("|", ">", ">>", "&&", "&", ";")), len(words))
            found += [words[:end]] if words else []
        return found


def blocks(page: Path) -> list[Block]:
    return read(page.read_text(encoding="utf-8"))


def read(text: str) -> list[Block]:
    return [
        Block(found["language"], found["text"], found["mark"] or "", text[: found.start("text")].count("\n") + 1)
        for found in BLOCK.finditer(text)
    ]


def name_of(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def unknown_keys(words: list[str]) -> list[str]:
    """Return the keys of a training command that no configuration has."""
    overrides = dict(word.lstrip("+~").partition("=")[::2] for word in words if "=" in word and not word.startswith("-"))
    if "plugins" in overrides:
        return []
    return [key for key in overrides if key not in GROUPS and not OPEN.match(key) and not is_known_key(key)]


# -- looked at ---------------------------------------------------------------------------------------------------------------


def test_blocks_are_found_with_their_marks():
    text = "<!-- run -->\n```bash\nrltrain train seed=1  # why\n\n# a comment\nrltrain eval latest json=true | jq .\n```\n"
    one, two = read(text + "words\n<!-- skip: no display -->\n```python\nx = 1\n```\n")
    assert (one.mark, one.line, two.language, two.is_skipped) == ("run", 3, "python", True)
    assert one.commands() == [["rltrain", "train", "seed=1"], ["rltrain", "eval", "latest", "json=true"]]
    assert unknown_keys(["train", "agents.ppo.learning_rat=1", "agents.x.epochs=2", "env.kwargs.g=1", "sed=1"]) == [
        "agents.ppo.learning_rat", "sed",
    ]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_what_a_page_names_is_there(page):
    for block in blocks(page):
        where = f"{name_of(page)}:{block.line}"
        if block.language == "python":
            compile(block.text, where, "exec")
            continue
        for words in block.commands():
            scripts = [word for word in words[:2] if word.startswith("scripts/")]
            assert all((ROOT / script).exists() for script in scripts), f"{where}: {scripts}"
            if words[:2] == ["rltrain", "train"]:
                assert unknown_keys(words[2:]) == [], where


def test_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((?!https?://|#)([^)#]+)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert links and [link for link in links if not (ROOT / link).exists()] == []


# -- done --------------------------------------------------------------------------------------------------------------------


@pytest.fixture
def desk(here, trained, monkeypatch):
    """A directory with a run under the names that pages give one; what plugins register is forgotten afterwards."""
    shutil.copytree(trained, here / "RUN")
    (here / "outputs").mkdir()
    (here / "outputs" / "latest").symlink_to("../RUN")
    monkeypatch.setattr(sys, "path", [*sys.path])
    for name in ("plugin_options", "plugin_packages"):
        monkeypatch.setattr(schema, name, set(getattr(schema, name)))
    before = {group: dict(choices) for group, choices in schema.CHOICES.items()}
    yield here
    for group, choices in before.items():
        schema.CHOICES[group].clear()
        schema.CHOICES[group].update(choices)


def run(words: list[str], *, in_earnest: bool, where: str) -> None:
    """Run one command of rltrain, shortened: no training unless in earnest, two episodes, no window."""
    if words[0] == "train" and ("-m" in words or "--multirun" in words):
        from rltrain.commands.jobs import check_jobs

        check_jobs([word for word in words[1:] if not word.startswith("-")])
        return
    words = [re.sub(r"^episodes=\d+$", "episodes=2", word) for word in words if word != "render=human"]
    if words[0] == "train" and not in_earnest and not any(word.startswith(("-", "dry_run")) for word in words):
        words.append("dry_run=true")
    result = call(*words)
    allowed = [0]
    if any(word.startswith("fail_under=") for word in words):
        allowed.append(1)
    if words[:2] == ["checkpoint", "export"] and "memory" in result.err:
        return  # the run has none to write
    if result.status == 2 and any(name.lower() in result.err.lower() for name in OPTIONAL):
        return
    assert result.status in allowed, f"{where}: rltrain {' '.join(words)}\n{result.err}"


def write_files(page: Path, folder: Path) -> None:
    for block in blocks(page):
        named = FILE.match(block.text) if block.language == "python" and not block.is_skipped else None
        if named:
            (folder / named[1]).write_text(block.text)


@pytest.mark.parametrize(
    "page", [pytest.param(page, marks=[] if page.name == "README.md" else pytest.mark.slow, id=name_of(page)) for page in PAGES]
)
def test_commands_work(page, desk):
    write_files(page, desk)
    for block in blocks(page):
        for words in block.commands() if block.language == "bash" and not block.is_skipped else ():
            if words[0] == "rltrain" and len(words) > 1:
                run(words[1:], in_earnest=block.mark == "run", where=f"{name_of(page)}:{block.line}")


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.language == "python" for block in blocks(page))], ids=name_of
)
def test_programs_work(page, desk):
    write_files(page, desk)
    program = [block.text for block in blocks(page) if block.language == "python" and not block.is_skipped]
    program = [text for text in program if not FILE.match(text)]
    (desk / "page.py").write_text("\n".join(program))
    done = subprocess.run([sys.executable, "page.py"], cwd=desk, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{name_of(page)}\n{done.stderr[-3000:]}"
