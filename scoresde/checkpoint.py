"""Checkpoints: one safetensors file whose header holds the JSON; written atomically, never unpickled, checked at load.

Tensor names are ``group/name``; the groups in use are ``ema``, ``raw`` (weights), ``opt`` (optimiser state) and
``data`` (mean and variance of the scaled data). The header's JSON says everything else: format, config, scaler, step,
and two SHA-256: of the tensors, and of that JSON.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from scoresde.errors import BadInput, OutputError

FORMAT = 1


def digest(tensors: dict[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in the order of the names."""
    total = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        total.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        total.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return total.hexdigest()


def _seal(info: dict[str, Any]) -> str:
    """SHA-256 of the header, as JSON gives it back."""
    return hashlib.sha256(json.dumps(json.loads(json.dumps(info)), sort_keys=True).encode()).hexdigest()


def write_atomically(path: str | Path, content: bytes) -> None:
    """Write a file whole or not at all: a temporary file beside it, flushed to disk, then renamed."""
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        raise OutputError(f"cannot write {str(path)!r}: {error.strerror or error}") from error
    finally:  # gone already if all went well; else, an interruption included, nothing stays behind
        with contextlib.suppress(OSError):
            temporary.unlink()


def sweep(folder: Path) -> None:
    """Remove what writes into a folder, or one in it, have left half-done in processes that were killed."""
    for path in (*folder.glob(".*.partial"), *folder.glob("*/.*.partial")):
        number = path.name.split(".")[-2]
        if number.isdecimal() and not _alive(int(number)):
            with contextlib.suppress(OSError):
                path.unlink()


def _alive(process: int) -> bool:
    """Whether another process has this number: what bears our own is of one before us."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:  # of somebody else
        pass
    return process != os.getpid()


def save_checkpoint(path: str | Path, tensors: dict[str, Tensor], info: dict[str, Any]) -> None:
    """Write tensors and their JSON ``info`` as one file, atomically."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    header = {**info, "format": FORMAT, "sha256": digest(tensors)}
    write_atomically(path, save(tensors, metadata={"scoresde": json.dumps({**header, "seal": _seal(header)})}))


def load_checkpoint(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read (tensors, info). A file that is missing, truncated, altered or not ours is refused in one line."""
    path = Path(path)
    if not path.is_file():
        raise BadInput(f"checkpoint {str(path)!r}: no such file")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
    except (SafetensorError, OSError) as error:
        reason = str(error).splitlines()[0]
        raise BadInput(f"checkpoint {str(path)!r}: not a whole safetensors file ({reason})") from None
    if "scoresde" not in metadata:
        raise BadInput(
            f"checkpoint {str(path)!r}: safetensors, but not written by scoresde (use scoresde.from_callable)"
        )
    try:
        info = dict(json.loads(metadata["scoresde"]))
    except (ValueError, TypeError):
        raise BadInput(f"checkpoint {str(path)!r}: its header is damaged") from None
    if info.get("format") != FORMAT:
        raise BadInput(f"checkpoint {str(path)!r}: format {info.get('format')!r}, this version reads {FORMAT}")
    seal = info.pop("seal", None)
    if info.get("sha256") != digest(tensors) or seal not in (None, _seal(info)):  # the first files had no seal
        raise BadInput(f"checkpoint {str(path)!r}: its content does not match its SHA-256; it was altered or damaged")
    return tensors, info


def halved(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Weights to hand out: tensors of more than 1,000 numbers in half precision, the others as they are.

    Rounding to float16 moves a weight by at most 2^-11 of itself, or 2^-25.
    """
    return {k: v.half() if v.numel() > 1000 and v.is_floating_point() else v for k, v in weights.items()}


def group(tensors: dict[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors of one group, without the prefix."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}


def prefixed(name: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `group`."""
    return {f"{name}/{key}": tensor for key, tensor in tensors.items()}
