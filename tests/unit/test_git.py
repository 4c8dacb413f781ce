"""Git facts are read from `.git` alone, and say what `git` says."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from provd.producer.code import read_code

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")


def git(folder: Path, *arguments: str) -> str:
    """Run git as someone."""
    identity = ("-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-c", "commit.gpgsign=false")
    done = subprocess.run(
        ["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True
    )
    return done.stdout.strip()


@pytest.fixture(params=["2", "4"])
def script(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """A committed script in a repository of each version of the index."""
    repository = tmp_path / "experiment"
    (repository / "src" / "deep").mkdir(parents=True)
    for name in ("a.py", "src/train.py", "src/deep/train_more.py", "src/deep/Zürich.py"):
        (repository / name).write_text(f"# {name}\n")
    git(repository, "init", "-q", "-b", "main")
    git(repository, "config", "index.version", request.param)
    git(repository, "remote", "add", "origin", "https://ada:hunter2@example.org/exp.git")
    git(repository, "add", ".")
    git(repository, "commit", "-q", "-m", "first")
    return repository / "src" / "train.py"


def test_commit_branch_and_remote_are_those_of_git(script: Path) -> None:
    code = read_code(str(script))

    assert code["commit"] == git(script.parent, "rev-parse", "HEAD")
    assert code["branch"] == "main"
    assert code["dirty"] is False
    assert code["repository"] == "https://ada:***@example.org/exp.git"


def test_a_packed_reference_and_a_detached_head_are_read(script: Path) -> None:
    commit = git(script.parent, "rev-parse", "HEAD")
    git(script.parent, "pack-refs", "--all")
    packed = read_code(str(script))
    git(script.parent, "checkout", "-q", "--detach")
    detached = read_code(str(script))

    assert packed["commit"] == detached["commit"] == commit
    assert "branch" not in detached


def test_a_linked_worktree_is_read(script: Path, tmp_path: Path) -> None:
    git(script.parent, "worktree", "add", "-q", "-b", "other", str(tmp_path / "linked"))

    code = read_code(str(tmp_path / "linked" / "src" / "train.py"))

    assert code["branch"] == "other"
    assert code["commit"] == git(script.parent, "rev-parse", "HEAD")
    assert code["dirty"] is False


def test_a_changed_script_is_dirty_until_it_is_committed(script: Path) -> None:
    script.write_text("# changed, longer than before\n")
    changed = read_code(str(script))
    git(script.parent, "add", ".")
    staged = read_code(str(script))
    git(script.parent, "commit", "-q", "-m", "second")
    committed = read_code(str(script))

    assert (changed["dirty"], staged["dirty"], committed["dirty"]) == (True, True, False)


def test_a_script_that_was_only_touched_or_changed_within_its_size_is_told_apart(script: Path) -> None:
    before = script.read_text()
    script.write_text(before.replace("train", "brain"))
    changed = read_code(str(script))
    script.write_text(before)
    touched = read_code(str(script))

    assert (changed["dirty"], touched["dirty"]) == (True, False)


def test_an_untracked_script_is_dirty(script: Path) -> None:
    other = script.with_name("scratch.py")
    other.write_text("pass\n")

    assert read_code(str(other))["dirty"] is True


def test_another_files_change_that_is_not_run_does_not_matter(script: Path) -> None:
    (script.parents[1] / "a.py").write_text("# notes, longer than before\n")

    assert read_code(str(script))["dirty"] is False


def test_outside_of_a_repository_there_is_the_file_and_its_checksum(tmp_path: Path) -> None:
    lone = tmp_path / "lone.py"
    lone.write_text("pass\n")

    code = read_code(str(lone))

    assert code["file"] == str(lone)
    assert len(code["sha256"]) == 64


def test_a_repository_without_a_configuration_keeps_its_commit(script: Path) -> None:
    commit = git(script.parent, "rev-parse", "HEAD")
    (script.parents[1] / ".git" / "config").unlink()

    code = read_code(str(script))

    assert (code["commit"], code["dirty"]) == (commit, False)
    assert "repository" not in code


@pytest.mark.parametrize("ruin", [b"", b"DIRC", b"DIRC\0\0\0\x09\0\0\0\x01" + b"\0" * 40])
def test_a_ruined_index_leaves_the_rest_of_the_facts(script: Path, ruin: bytes) -> None:
    (script.parents[1] / ".git" / "index").write_bytes(ruin)

    code = read_code(str(script))

    assert "dirty" not in code
    assert "commit" in code
