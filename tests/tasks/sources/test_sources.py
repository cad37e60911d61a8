"""Archives are unpacked whole and inside their folder, or not at all."""

import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tasks.errors import DataError
from tasks.sources.local import locate, unpack


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


@pytest.mark.parametrize("parent", ["", "wrapped", "wrapped/twice"])
def test_a_folder_is_found_under_its_usual_names(tmp_path, parent):
    (tmp_path / parent / "a").mkdir(parents=True)
    folder = locate(None, data_dir=tmp_path, marker="a", parents=["wrapped", "wrapped/twice"])
    assert folder == tmp_path / parent


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


def test_another_kind_of_file(tmp_path):
    (tmp_path / "data.zip").write_bytes(b"PK")
    with pytest.raises(DataError, match=r"data\.zip is neither a folder nor a tar archive"):
        unpack(tmp_path / "data.zip", data_dir=tmp_path)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_truncated_or_corrupted_archive_is_refused(tmp_path, data):
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
    with pytest.raises(DataError) as caught:
        unpack(archive, data_dir=tmp_path / "data")
    assert "\n" not in str(caught.value)
    assert not [
        path for path in (tmp_path / "data").rglob("*") if path.suffix != ".lock" and path.is_file()
    ]
