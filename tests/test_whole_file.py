"""A file is the old one or the new one, whole, whatever happens to who writes it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from macformer import whole_file as module
from macformer.whole_file import replaced, whole_file

OLD, NEW = b"old" * 1000, b"new" * 1000


@pytest.fixture
def path(tmp_path) -> Path:
    (tmp_path / "file").write_bytes(OLD)
    return tmp_path / "file"


def test_readers_see_the_old_file_until_the_new_one_is_whole(path):
    with whole_file(path) as file:
        file.write(NEW)
        file.flush()
        assert path.read_bytes() == OLD
    assert path.read_bytes() == NEW
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_folder_is_made_for_the_file(tmp_path):
    with whole_file(tmp_path / "a" / "b" / "file") as file:
        file.write(NEW)
    assert (tmp_path / "a" / "b" / "file").read_bytes() == NEW


@pytest.mark.parametrize("durable", [True, False])
def test_contents_are_on_the_disk_before_the_name_is_and_the_name_before_the_end(
    path, monkeypatch, durable
):
    """A power cut between any two of these steps leaves one of the two files."""
    steps = []
    replace = Path.replace

    def fsync(descriptor):
        kind = "folder" if os.path.samestat(os.fstat(descriptor), path.parent.stat()) else "file"
        size = path.with_name("file.tmp").stat().st_size if kind == "file" else None
        steps.append((kind, size))

    def rename(self, target):
        steps.append(("name", None))
        return replace(self, target)

    monkeypatch.setattr(module.os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", rename)
    with whole_file(path, durable=durable) as file:
        file.write(NEW)
    waited = [("file", len(NEW)), ("name", None), ("folder", None)]
    assert steps == (waited if durable else waited[1:2])


@pytest.mark.parametrize("durable", [True, False])
def test_a_full_disk_leaves_the_old_file_alone(path, durable):
    path.with_name("file.tmp").symlink_to("/dev/full")
    with pytest.raises(OSError, match="No space left"), whole_file(path, durable=durable) as file:
        file.write(NEW)
    assert path.read_bytes() == OLD
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_a_writer_that_fails_leaves_the_old_file_alone(path):
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(NEW)
        _ = 1 / 0
    assert path.read_bytes() == OLD
    assert [each.name for each in path.parent.iterdir()] == ["file"]


KILLED = """
import os, signal, sys
from pathlib import Path
from macformer.whole_file import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    file.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_writer_that_is_killed_leaves_the_old_file_and_the_next_one_tidies_up(path):
    assert subprocess.run([sys.executable, "-c", KILLED, str(path)], check=False).returncode == -9
    assert path.read_bytes() == OLD
    with whole_file(path) as file:
        file.write(NEW)
    assert path.read_bytes() == NEW
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_writers_of_one_file_do_not_meet_where_they_have_names(path):
    with whole_file(path, writer=".one") as one:
        one.write(NEW)
        with whole_file(path, writer=".two") as two:
            two.write(OLD[::-1])
        assert path.read_bytes() == OLD[::-1]
    assert path.read_bytes() == NEW


def test_two_writers_of_one_file_do_not_meet(path):
    """As two sweeps in one folder that end at once: the later one wins, and neither fails."""
    with replaced(path) as first:
        with replaced(path) as second:
            second.write(OLD)
        first.write(NEW)
    assert path.read_bytes() == NEW
    assert [each.name for each in path.parent.iterdir()] == ["file"]
