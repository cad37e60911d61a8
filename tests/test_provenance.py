"""A figure says what it was measured on."""

import re

import torch

from macformer.provenance import device_name, is_cpu, second_level_cache


def test_the_second_of_several_caches_is_named(tmp_path):
    for index, (level, size) in enumerate(
        [("1", "48K"), ("1", "32K"), ("2", "2048K"), ("3", "9M")]
    ):
        folder = tmp_path / f"index{index}"
        folder.mkdir()
        (folder / "level").write_text(f"{level}\n")
        (folder / "size").write_text(f"{size}\n")
    assert second_level_cache(tmp_path) == "2048 KiB L2"
    (tmp_path / "index2" / "size").unlink()  # as where the system does not know
    assert second_level_cache(tmp_path) is None
    assert second_level_cache(tmp_path / "nothing") is None


def test_a_cpu_is_named_with_its_vectors_and_the_threads_of_torch():
    name = device_name(torch.device("cpu"))
    assert torch.backends.cpu.get_cpu_capability() in name
    assert re.search(rf"\({torch.get_num_threads()} threads?\)$", name)
    assert is_cpu(name) and not is_cpu("NVIDIA H200")
