"""Weights from a model hub: the local copy first, then one look at the hub, then one clear error."""

from __future__ import annotations

import errno
from pathlib import Path

from xdner.backbone.folders import check_folder
from xdner.errors import BackboneError, BackboneNotFoundError, StorageError

__all__ = ["from_hub"]

#: The files of a model's folder and nothing else: no pickles, no code, no other runtime's weights.
_WANTED = ["*.safetensors", "*.json", "*.model", "*.txt", "*.jinja"]
_UNWANTED = ["*/*", "consolidated*"]
_SECONDS = 4.0


def from_hub(name: str, *, hint: str) -> Path:
    """The folder of a hub model, downloaded unless the hub's local cache has it complete.

    ``HF_HUB_OFFLINE``, ``HF_HOME``, ``HF_ENDPOINT`` and ``HF_TOKEN`` mean what they always mean.

    Args:
        name: ``owner/model``, or the name of a model without owner.
        hint: what to do instead, for the errors.

    Raises:
        BackboneNotFoundError: the hub is unreachable, switched off, or knows no such model; or it has no safetensors.
        StorageError: the disk is full.
    """
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import GatedRepoError, HFValidationError, OfflineModeIsEnabled, RepositoryNotFoundError

    kept = _cached(name)
    if kept is not None:
        return kept
    try:
        files = {sibling.rfilename for sibling in HfApi().model_info(name, timeout=_SECONDS).siblings or []}
        _refuse_pickles(name, files)
        return Path(snapshot_download(name, allow_patterns=_WANTED, ignore_patterns=_UNWANTED, etag_timeout=_SECONDS))
    except BackboneNotFoundError:
        raise
    except HFValidationError:
        raise BackboneNotFoundError(f"{name!r} is no alias, no folder and no hub id", hint=hint) from None
    except GatedRepoError:
        raise BackboneNotFoundError(
            f"the hub model {name!r} is gated",
            hint="Accept its terms on its page, then set HF_TOKEN. Or: " + hint,
        ) from None
    except RepositoryNotFoundError:
        raise BackboneNotFoundError(
            f"{name!r} is no alias and no folder, and the model hub knows no model of that name", hint=hint
        ) from None
    except OfflineModeIsEnabled:
        raise BackboneNotFoundError(
            f"{name!r} is no alias, no folder and not in the hub's local cache, and HF_HUB_OFFLINE is set",
            hint=hint,
        ) from None
    except Exception as error:  # the hub's client lets the errors of several HTTP libraries through
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
            raise StorageError(f"cannot keep {name!r}: {error}", hint="Free some space, or set HF_HOME.") from error
        raise BackboneNotFoundError(
            f"{name!r} is no alias and no folder, and the model hub cannot be reached ({_reason(error)})", hint=hint
        ) from error


def _cached(name: str) -> Path | None:
    """The local copy, if config and weights are complete: no network, and the same weights as last time."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(name, local_files_only=True))
        check_folder(folder, name)
    except (OSError, ValueError, BackboneError):  # not there, no hub id, or not complete: the hub is asked
        return None
    return folder


def _refuse_pickles(name: str, files: set[str]) -> None:
    top = {file for file in files if "/" not in file}
    if any(file.endswith(".safetensors") for file in top):
        return
    pickles = sorted(file for file in top if file.endswith((".bin", ".pt", ".pth", ".h5", ".msgpack")))
    raise BackboneNotFoundError(
        f"the hub model {name!r} has no safetensors weights" + (f", only {', '.join(pickles[:3])}" if pickles else ""),
        hint="Pickled weights can run code when they are opened. Choose a revision or copy of the model with "
        "model.safetensors.",
    )


def _reason(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__
