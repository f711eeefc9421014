"""Heads outside the catalog, named by an import path ``package.module:Class``.

During the import, and only then, the current folder is the first entry of `sys.path`, as with ``python -m``: commands
that are installed as scripts do not search the current folder. The module is imported by its name and not from a file
path, so that it can import modules next to it and has the same name in every process.
"""

import importlib
import inspect
import os
import re
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import MISSING, fields
from functools import cache
from hashlib import blake2b
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Union, get_args, get_origin, get_type_hints

from cache.errors import MmerError
from fusion.head import Head, HeadConfig
from fusion.training.config import TrainConfig

IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
FIELD_TYPES = (bool, int, float, str)


def is_import_path(name: str) -> bool:
    """Returns whether the name of a head is an import path.

    Example:
        >>> is_import_path("my_heads:Gated"), is_import_path("a.b:Gated"), is_import_path("rescmfa")
        (True, True, False)
    """
    return IMPORT_PATH.fullmatch(name) is not None


def import_head(path: str) -> type[Head]:
    """Imports the class of a head.

    Args:
        path: ``package.module:Class``; the module must be in the current folder or on `sys.path`.

    Raises:
        MmerError: if the module cannot be imported, has no such class, or the class is not a usable head.
    """
    name, _, class_name = path.partition(":")
    module = _import_module(path, name)
    head = getattr(module, class_name, None)
    if not isinstance(head, type):
        file = getattr(module, "__file__", None) or "no file"
        raise MmerError(f"head {path}: module {name} ({file}) has no class {class_name}")
    if not issubclass(head, Head):
        raise MmerError(f"head {path}: {class_name} is not a subclass of fusion.head.Head")
    if inspect.isabstract(head):
        raise MmerError(f"head {path}: {class_name} has no method {', '.join(sorted(head.__abstractmethods__))}")
    check_config(path, head)
    return head


def check_config(path: str, head: type[Head]) -> None:
    """Checks that a head's configuration can be set on a command line and written to a file.

    Args:
        path: name of the head, for the error.
        head: class of the head.

    Raises:
        MmerError: if the class has no configuration, or one of its fields cannot be used.
    """
    config = getattr(head, "config_class", None)
    if config is None:
        raise MmerError(
            f"head {path}: {head.__name__} has no config_class; set it to a subclass of fusion.head.HeadConfig, "
            "or to HeadConfig itself"
        )
    if not isinstance(config, type) or not issubclass(config, HeadConfig) or "__dataclass_fields__" not in vars(config):
        raise MmerError(
            f"head {path}: config_class must be a subclass of fusion.head.HeadConfig with "
            f"@dataclass(frozen=True, kw_only=True), got {getattr(config, '__name__', config)}"
        )
    training_fields = {field.name for field in fields(TrainConfig)}
    types = get_type_hints(config)
    for field in fields(config):
        subject = f"head {path}: field {field.name} of {config.__name__}"
        if not _is_plain(types[field.name]):
            raise MmerError(f"{subject} must be a bool, int, float or str, or one of them or None, got {field.type}")
        if field.default is MISSING and field.default_factory is MISSING:
            raise MmerError(f"{subject} has no default; give it one")
        if field.name in training_fields:
            raise MmerError(f"{subject} has the name of a training field; choose another name")


@cache
def source_digest(head: type[Head]) -> str:
    """Returns the digest of a class's source file, 16 hexadecimal digits; empty without a file.

    The file is read at the first call only, right after the import: later edits take effect in a new process.
    """
    try:
        source = Path(inspect.getfile(head)).read_bytes()
    except (OSError, TypeError):
        return ""
    return blake2b(source.replace(b"\r\n", b"\n"), digest_size=8).hexdigest()


def _import_module(path: str, name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    importlib.invalidate_caches()  # the file may be newer than the cached listing of its folder
    try:
        with _current_folder_first():
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise MmerError(f"head {path}: {_where(error, name)}: {error}") from error
        raise MmerError(
            f"head {path}: module {error.name} not found in the current folder ({Path.cwd()}) or on the Python path"
        ) from None
    except Exception as error:
        raise MmerError(f"head {path}: {_where(error, name)}: {type(error).__name__}: {error}") from error


@contextmanager
def _current_folder_first() -> Iterator[None]:
    folder = os.getcwd()  # noqa: PTH109 - an entry of sys.path is text
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        with suppress(ValueError):  # the module may have changed sys.path itself
            sys.path.remove(folder)


def _where(error: BaseException, name: str) -> str:
    """Formats the position of a failed import: the line of the module, or of a module that it imports."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if len(frames) > 1 else f"module {name}"


def _is_plain(hint: object) -> bool:
    """Returns whether values of a type can be written on a command line."""
    is_union = get_origin(hint) in {Union, UnionType}
    types = [member for member in get_args(hint) if member is not NoneType] if is_union else [hint]
    return len(types) == 1 and types[0] in FIELD_TYPES
