"""Archives are unpacked whole and inside their folder, or not at all."""

import errno
import io
import os
import shutil
import tarfile
from functools import partial
from pathlib import Path
from unittest.mock import Mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.sources.content import content_of
from tasks.sources.leftovers import is_leftover
from tasks.sources.local import RELEASE_FOLDERS, locate, unpack


def write_tar(path: Path, names: list[str]) -> None:
    with tarfile.open(path, "w:gz") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))


def test_an_archive_stands_for_its_folder(tmp_path):
    write_tar(tmp_path / "data.tar.gz", ["wrapped/a/b.txt"])
    folder = locate(
        tmp_path / "data.tar.gz", data_dir=tmp_path, marker="a/b.txt", parents=["wrapped"]
    )
    assert (folder / "a/b.txt").read_bytes() == b"abc"
    assert unpack(tmp_path / "data.tar.gz", data_dir=tmp_path) == folder.parent


@pytest.mark.parametrize("marker", ["a", "a/b.txt", "a/sub/b.txt"])
def test_the_first_folder_of_a_marker_may_be_given(tmp_path, marker):
    (tmp_path / "a" / "sub").mkdir(parents=True)
    for name in ("b.txt", "sub/b.txt"):
        (tmp_path / "a" / name).touch()
    find = partial(locate, data_dir=tmp_path / "data", marker=marker, parents=RELEASE_FOLDERS)
    assert find(tmp_path / "a") == find(tmp_path) == tmp_path
    with pytest.raises(DataError, match=f"no {marker} in .*sub; give the folder that holds it"):
        find(tmp_path / "a" / "sub")


@pytest.mark.parametrize("parent", ["", "wrapped", "wrapped/twice"])
def test_a_folder_is_found_under_its_usual_names(tmp_path, parent):
    (tmp_path / parent / "a").mkdir(parents=True)
    folder = locate(None, data_dir=tmp_path, marker="a", parents=["wrapped", "wrapped/twice"])
    assert folder == tmp_path / parent


def test_the_inner_of_two_copies_is_taken(tmp_path, caplog):
    for parent in ("lra_release", "lra_release/lra_release"):
        (tmp_path / parent / "a" / "sub").mkdir(parents=True)
        (tmp_path / parent / "a" / "sub" / "b.txt").write_text("the same")
        # A leftover is no difference.
        (tmp_path / parent / "a" / ".DS_Store").write_text(parent)
    find = partial(locate, tmp_path, data_dir=tmp_path, marker="a", parents=RELEASE_FOLDERS)
    assert find() == tmp_path / "lra_release" / "lra_release"
    assert not caplog.records
    (tmp_path / "lra_release" / "a" / "sub" / "b.txt").write_text("not same")
    assert find() == tmp_path / "lra_release" / "lra_release"
    [record] = caplog.records
    assert "lra_release/a and " in record.getMessage()
    assert (
        "lra_release/lra_release/a differ in sub/b.txt; the second is read" in record.getMessage()
    )


@pytest.mark.parametrize("name", ["lra_release", "lra_release.gz", "data.zip", "data.tar.xz.1"])
def test_content_and_not_the_name_makes_an_archive(tmp_path, name):
    write_tar(tmp_path / name, ["a/b.txt"])
    assert (unpack(tmp_path / name, data_dir=tmp_path / "data") / "a/b.txt").read_bytes() == b"abc"


def test_leftovers_stay_in_the_archive(tmp_path):
    leftovers = ["a/._b.txt", "__MACOSX/a/._b.txt", "a/.DS_Store", "a/Thumbs.db", "a/b.txt~"]
    write_tar(tmp_path / "data.tar", ["./a/b.txt", *leftovers])
    folder = unpack(tmp_path / "data.tar", data_dir=tmp_path)
    assert [path.name for path in folder.rglob("*") if path.is_file()] == ["b.txt"]


@pytest.mark.parametrize(
    "name",
    [
        *("._x", "a/.DS_Store", "Thumbs.db", "__MACOSX/a/x.txt", "Desktop.ini", "x~"),
        *("x.txt:Zone.Identifier", "@eaDir/x.txt", "Icon\r", "#x#", "~$x.csv", "x.swp"),
    ],
)
def test_what_tools_leave_is_known(name):
    assert is_leftover(name)


@pytest.mark.parametrize("name", ["x.txt", "a/0_9.txt", "../a/x", "metadata/0.npy", "a_b~c.txt"])
def test_data_are_no_leftovers(name):
    assert not is_leftover(name)


def test_another_archive_of_the_same_name_size_and_time_is_another(tmp_path):
    contents = []
    for letter in (b"x", b"y"):
        archive = tmp_path / letter.decode() / "data.tar"
        archive.parent.mkdir()
        with tarfile.open(archive, "w") as tar:
            member = tarfile.TarInfo("a.txt")
            member.size = 3
            tar.addfile(member, io.BytesIO(3 * letter))
        os.utime(archive, ns=(0, 0))
        contents.append((unpack(archive, data_dir=tmp_path / "data") / "a.txt").read_bytes())
    assert contents == [b"xxx", b"yyy"]
    moved = archive.rename(tmp_path / "data.tar")
    assert unpack(moved, data_dir=tmp_path / "data").parent == tmp_path / "data" / "unpacked"
    assert len(list((tmp_path / "data" / "unpacked").glob("*[!k]"))) == 2


def test_what_was_hashed_is_remembered_until_it_changes(tmp_path, monkeypatch):
    (tmp_path / "raw").mkdir()
    (tmp_path / "raw" / "x.txt").write_text("one")
    hashed = []
    monkeypatch.setattr(
        "tasks.sources.content.file_sha256", lambda path: hashed.append(path) or path.read_text()
    )
    name = partial(
        content_of,
        str(tmp_path / "raw"),
        data_dir=tmp_path / "data",
        marker="x.txt",
        parents=[],
        patterns=["*.txt"],
    )
    first = name()
    assert name() == first and len(hashed) == 1
    (tmp_path / "raw" / "x.txt").write_text("two")
    os.utime(tmp_path / "raw" / "x.txt", ns=(0, 1))
    assert name() != first and len(hashed) == 2
    for damage in ("", "{", "[]", '{"signature": 1}'):
        next((tmp_path / "data" / "sources").iterdir()).write_text(damage)
        assert name() != first


@pytest.mark.parametrize("gone", ["raw", "raw/a", "raw/a/x.txt"])
def test_files_that_are_gone_have_the_content_they_had(tmp_path, gone):
    (tmp_path / "raw" / "a").mkdir(parents=True)
    (tmp_path / "raw" / "a" / "x.txt").write_text("one")
    options = {"data_dir": tmp_path / "data", "marker": "a", "parents": [], "patterns": ["a/*.txt"]}
    first = content_of(str(tmp_path / "raw"), **options)
    (tmp_path / gone).rename(tmp_path / "elsewhere")
    assert content_of(str(tmp_path / "raw"), **options) == first
    assert content_of(None, **options) is None


@pytest.mark.parametrize("name", ["../escaped.txt", "/escaped.txt", "a/../../../escaped.txt"])
def test_a_path_that_leaves_the_folder(tmp_path, name):
    data_dir = tmp_path / "x" / "y" / "data"
    write_tar(tmp_path / "bad.tar.gz", ["fine.txt", name])
    if name.startswith("/"):
        # Tar archives hold absolute paths without harm: the slash is dropped.
        assert (unpack(tmp_path / "bad.tar.gz", data_dir=data_dir) / "escaped.txt").exists()
    else:
        with pytest.raises(DataError, match=r"bad\.tar\.gz is refused: .*outside"):
            unpack(tmp_path / "bad.tar.gz", data_dir=data_dir)
        assert not list(tmp_path.rglob("escaped.txt"))
        assert not list(tmp_path.rglob("fine.txt"))


def test_a_link_that_leaves_the_folder(tmp_path):
    with tarfile.open(tmp_path / "bad.tar", "w") as tar:
        link = tarfile.TarInfo("link")
        link.type = tarfile.SYMTYPE
        link.linkname = "../../outside"
        tar.addfile(link)
    with pytest.raises(DataError, match=r"bad\.tar is refused"):
        unpack(tmp_path / "bad.tar", data_dir=tmp_path)


def test_a_full_disk_is_not_called_a_damaged_archive(tmp_path, monkeypatch):
    write_tar(tmp_path / "data.tar.gz", ["a/b.txt"])
    full = Mock(side_effect=OSError(errno.ENOSPC, "No space left on device"))
    monkeypatch.setattr(tarfile.TarFile, "extractall", full)
    with pytest.raises(DataError, match=r"data\.tar\.gz cannot be unpacked: .*No space left"):
        unpack(tmp_path / "data.tar.gz", data_dir=tmp_path / "data")


def test_another_kind_of_file(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"PK" * 999)
    with pytest.raises(DataError, match=r"data\.zip is neither a folder nor a tar archive"):
        unpack(tmp_path / "data.zip", data_dir=tmp_path)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_truncated_or_corrupted_archive_is_refused_or_has_the_same_content(tmp_path, data):
    original = tmp_path / "original.tar.gz"
    if not original.exists():
        write_tar(original, ["a/b.txt", "a/c.txt"])
    content = bytearray(original.read_bytes())
    if data.draw(st.booleans(), label="truncate"):
        del content[data.draw(st.integers(0, len(content) - 9), label="length") :]
    else:
        # Behind the header of gzip, which ends with a file name; a checksum covers the rest.
        first = content.index(0, 10) + 1
        position = data.draw(st.integers(first, len(content) - 1), label="position")
        content[position] ^= data.draw(st.integers(1, 255), label="flipped bits")
    archive = tmp_path / "corrupted.tar.gz"
    archive.write_bytes(content)
    try:
        folder = unpack(archive, data_dir=tmp_path / "data")
    except DataError as error:
        assert "\n" not in str(error)
        assert not files_below(tmp_path / "data" / "unpacked")
    else:  # the same bytes can be compressed in several ways, which no checksum tells apart
        whole = unpack(original, data_dir=tmp_path / "whole")
        assert files_below(folder) == files_below(whole)
        shutil.rmtree(tmp_path / "data")


def files_below(folder: Path) -> dict[Path, bytes]:
    return {
        path.relative_to(folder): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.suffix != ".lock"
    }
