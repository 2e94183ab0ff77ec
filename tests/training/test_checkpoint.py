"""A checkpoint comes back bit for bit, or is refused with the next step."""

from __future__ import annotations

import json
import os

import pytest
import torch

from xdner.errors import StorageError, TrainingError
from xdner.training.checkpoint import Position, identity, read_checkpoint, write_checkpoint

POSITION = Position(
    epoch=3, batch=5, step=17, epoch_loss=0.1 + 0.2, seconds=1 / 3, best=2**-1074, best_epoch=2, waited=1,
    history=[{"epoch": 1, "loss": 1e300 / 7, "dev": None}],
)  # fmt: skip


def test_numbers_and_tensors_come_back_exactly(tmp_path):
    base = torch.randn(4, 6)
    tensors = {
        "nan": torch.tensor([float("nan"), -0.0, float("inf")]),
        "half": torch.randn(3).bfloat16(),
        "count": torch.tensor(12.0),
        "empty": torch.zeros(0, 3),
        "rows": base[1:3],  # two views of one storage, the second with strides
        "columns": base.t()[2:4],
    }
    write_checkpoint(tmp_path / "c", POSITION, "run", tensors)
    kept = read_checkpoint(tmp_path / "c", "run")
    assert kept.position == POSITION
    assert kept.made["threads"] == torch.get_num_threads()
    assert kept.made["torch"] == torch.__version__
    assert kept.tensors.keys() == tensors.keys()
    for name, tensor in tensors.items():
        got = kept.tensors[name]
        assert (got.dtype, got.shape) == (tensor.dtype, tensor.shape)
        # Bits, not values: NaN is not equal to itself, and -0.0 is equal to 0.0.
        assert got.reshape(-1).view(torch.uint8).tolist() == tensor.reshape(-1).view(torch.uint8).tolist()


def test_a_newer_one_replaces_the_older_and_clears_away_what_was_half_written(tmp_path):
    folder = tmp_path / "c"
    write_checkpoint(folder, Position(step=1), "run", {"a": torch.ones(1)})
    (folder / ".state-00000002.part").write_bytes(b"half")
    (folder / "notes.txt").write_text("mine")
    write_checkpoint(folder, Position(step=1), "run", {"a": torch.ones(1) * 2})
    assert read_checkpoint(folder, "run").tensors["a"].item() == 2
    assert sorted(p.suffix for p in folder.iterdir()) == [".json", ".safetensors", ".txt"]


def test_reading_clears_away_what_a_process_left_that_was_killed_after_its_last_checkpoint(tmp_path):
    """Such a run has ended, and writes no other that would."""
    write_checkpoint(tmp_path, Position(step=2, stopped="finished"), "run", {"a": torch.ones(1)})
    (tmp_path / "state-00000001-abcd.safetensors").write_bytes(b"older")
    (tmp_path / ".state-00000002.part").write_bytes(b"half")
    with pytest.raises(TrainingError, match="belongs to another run"):
        read_checkpoint(tmp_path, "another")
    assert len(list(tmp_path.iterdir())) == 4, "nothing of another run's is touched"
    assert read_checkpoint(tmp_path, "run").position.step == 2
    assert sorted(p.suffix for p in tmp_path.iterdir()) == [".json", ".safetensors"]
    assert read_checkpoint(tmp_path, "run").position.step == 2


def test_what_was_read_does_not_hang_on_the_file(tmp_path):
    write_checkpoint(tmp_path, Position(step=1), "run", {"a": torch.arange(5000.0)})
    kept = read_checkpoint(tmp_path, "run")
    for file in tmp_path.glob("*.safetensors"):
        file.write_bytes(b"\0" * file.stat().st_size)
    assert torch.equal(kept.tensors["a"], torch.arange(5000.0))


@pytest.mark.parametrize("fatal", [1, 2])
def test_a_full_disk_keeps_the_older_one(tmp_path, monkeypatch, fatal):
    folder = tmp_path / "c"
    write_checkpoint(folder, Position(step=1), "run", {"a": torch.ones(1)})
    before = sorted(os.listdir(folder))
    calls = []

    def full(_):
        calls.append(1)
        if len(calls) == fatal:
            raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="No space left on device"):
        write_checkpoint(folder, Position(step=2), "run", {"a": torch.zeros(1)})
    assert sorted(os.listdir(folder)) == before
    assert read_checkpoint(folder, "run").position.step == 1


def test_the_system_s_own_refusal_is_a_storage_error(tmp_path):
    """Not simulated: the system lets no file grow past a megabyte."""
    resource = pytest.importorskip("resource", reason="limits of a process are set the Unix way")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    try:
        with pytest.raises(StorageError, match="File too large"):
            write_checkpoint(tmp_path / "c", Position(), "run", {"a": torch.zeros(300_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path / "c") == []


def test_none_there(tmp_path):
    with pytest.raises(TrainingError, match="there is no checkpoint in") as caught:
        read_checkpoint(tmp_path / "c", "run")
    assert caught.value.hint == "Start again without --resume."


def test_another_run_is_refused(tmp_path):
    ours, theirs = identity("data", {"seed": 1}), identity("data", {"seed": 2})
    write_checkpoint(tmp_path, POSITION, theirs, {})
    with pytest.raises(TrainingError, match="data, settings, seed or backbone differ") as caught:
        read_checkpoint(tmp_path, ours)
    assert f"belongs to another run ({theirs[:8]}, this one is {ours[:8]})" in caught.value.message
    assert "exactly what the run began with" in caught.value.hint


def _edit(folder, change):
    state = json.loads((folder / "state.json").read_text())
    change(state)
    (folder / "state.json").write_text(json.dumps(state))


BREAKAGES = {
    "not JSON": lambda f: (f / "state.json").write_text('{"format": 2,'),
    "not UTF-8": lambda f: (f / "state.json").write_bytes(b"\xff\xfe"),
    "a list": lambda f: (f / "state.json").write_text("[]"),
    "a number": lambda f: (f / "state.json").write_text("3"),
    "a folder": lambda f: ((f / "state.json").unlink(), (f / "state.json").mkdir()),
    "no run": lambda f: _edit(f, lambda s: s.pop("run")),
    "no position": lambda f: _edit(f, lambda s: s.update(position=None)),
    "half a position": lambda f: _edit(f, lambda s: s["position"].pop("step")),
    "tensors of no name": lambda f: _edit(f, lambda s: s.update(tensors=3)),
    "no tensors": lambda f: next(f.glob("*.safetensors")).unlink(),
    "half the tensors": lambda f: os.truncate(next(f.glob("*.safetensors")), 90),
    "empty tensors": lambda f: os.truncate(next(f.glob("*.safetensors")), 0),
    "another format": lambda f: _edit(f, lambda s: s.update(format=99)),
}


@pytest.mark.parametrize("how", BREAKAGES)
def test_a_broken_one_is_refused_with_the_next_step(tmp_path, how):
    write_checkpoint(tmp_path, POSITION, "run", {"a": torch.zeros(50)})
    BREAKAGES[how](tmp_path)
    with pytest.raises(TrainingError, match=r"is broken|cannot be read|has format 99, this version reads") as caught:
        read_checkpoint(tmp_path, "run")
    assert str(tmp_path) in caught.value.message
    assert caught.value.hint == "Start again without --resume."


def test_the_tensors_name_cannot_lead_out_of_the_folder(tmp_path):
    write_checkpoint(tmp_path / "other", POSITION, "run", {"secret": torch.zeros(1)})
    write_checkpoint(tmp_path / "c", POSITION, "run", {"a": torch.zeros(1)})
    outside = next((tmp_path / "other").glob("*.safetensors")).name
    _edit(tmp_path / "c", lambda s: s.update(tensors=f"../other/{outside}"))
    with pytest.raises(TrainingError, match="is broken"):
        read_checkpoint(tmp_path / "c", "run")
