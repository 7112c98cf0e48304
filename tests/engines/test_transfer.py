"""Arrays to a device and back."""

from __future__ import annotations

import numpy as np
import torch

from drsow_plugin.engines.local.transfer import OnTheWay, moved


def test_arrays_come_as_they_are_aligned_and_together() -> None:
    arrays = {
        "ids": np.arange(5),
        ("cu", 0): np.array([0, 3], dtype=np.int32),
        "none": np.empty(0, dtype=np.int64),
        "block": np.arange(6, dtype=np.int32).reshape(2, 3),
    }
    tensors = moved(arrays, torch.device("cpu"))
    assert [*tensors] == [*arrays]
    for name, array in arrays.items():
        assert tensors[name].dtype == torch.from_numpy(array).dtype
        assert np.array_equal(tensors[name].numpy(), array)
        assert tensors[name].numpy().shape == array.shape
        assert tensors[name].numel() == 0 or tensors[name].data_ptr() % 16 == 0
    first, third = (tensors[name].untyped_storage().data_ptr() for name in ("ids", "none"))
    assert first == third


def test_what_is_moved_does_not_follow_what_it_was_made_of() -> None:
    ids = np.arange(5)
    tensor = moved({"ids": ids}, torch.device("cpu"))["ids"]
    ids[0] = 7
    assert tensor.tolist() == [0, 1, 2, 3, 4]


def test_values_are_read_in_float64() -> None:
    read = OnTheWay(torch.tensor([0.1, -2.0])).read()
    assert read.dtype == np.float64
    assert read.tolist() == [np.float32(0.1), -2.0]
