"""Heads outside the catalog, named by an import path ``package.module:Class``.

The module is imported with the current folder in front of `sys.path`, as ``python -m`` has it, and only for the time of
the import: commands that are installed as scripts do not search the current folder. The ordinary import system is used,
rather than a file path, so that the module may import its neighbours, and has the same name in every process.
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
from typing import Any, Union, get_args, get_origin, get_type_hints

from cache.errors import MmerError
from fusion.head import Head, HeadConfig
from fusion.training.config import TrainConfig

IMPORT_PATH = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")
FIELD_TYPES = (bool, int, float, str)


def is_import_path(name: str) -> bool:
    """Returns whether a name of a head is an import path.

    Example:
        >>> is_import_path("my_heads:Gated"), is_import_path("a.b:Gated"), is_import_path("rescmfa")
        (True, True, False)
    """
    return IMPORT_PATH.fullmatch(name) is not None


def import_head(path: str) -> type[Head]:
    """Imports the class of a head.

    Args:
        path: ``package.module:Class``; the module is found in the current folder, or on `sys.path`.

    Raises:
        MmerError: if the module cannot be imported, has no such class, or the class is not a usable head.
    """
    name, _, class_name = path.partition(":")
    module = _imported(path, name)
    found = getattr(module, class_name, None)
    if not isinstance(found, type):
        raise MmerError(f"head {path}: module {name} ({_file_of(module)}) has no class {class_name}")
    if not issubclass(found, Head):
        raise MmerError(f"head {path}: {class_name} is not a subclass of fusion.head.Head")
    if inspect.isabstract(found):
        raise MmerError(f"head {path}: {class_name} has no method {', '.join(sorted(found.__abstractmethods__))}")
    check_config(path, found)
    return found


def check_config(path: str, head: type[Head]) -> None:
    """Checks that the configuration of a head can be set on a command line and written to a file.

    Args:
        path: name of the head, for the error.
        head: its class.

    Raises:
        MmerError: if it has none, or a field cannot be used.
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
    of_training = {field.name for field in fields(TrainConfig)}
    types = get_type_hints(config)
    for field in fields(config):
        what = f"head {path}: field {field.name} of {config.__name__}"
        if not _is_plain(types[field.name]):
            raise MmerError(f"{what} must be a bool, int, float or str, or one of them or None, got {field.type}")
        if field.default is MISSING and field.default_factory is MISSING:
            raise MmerError(f"{what} has no default; give it one")
        if field.name in of_training:
            raise MmerError(f"{what} has the name of a field of the training; choose another name")


@cache
def source_digest(head: type[Head]) -> str:
    """Returns the digest of the file of a class, 16 hexadecimal digits; empty if there is no such file.

    The digest is of the file as it is at the first call, right after the import: an edited file is imported only by a
    new process.
    """
    try:
        source = Path(inspect.getfile(head)).read_bytes()
    except (OSError, TypeError):
        return ""
    return blake2b(source.replace(b"\r\n", b"\n"), digest_size=8).hexdigest()


def _imported(path: str, name: str) -> ModuleType:
    if name in sys.modules:
        return sys.modules[name]
    importlib.invalidate_caches()  # the file may be younger than the last look into its folder
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
        with suppress(ValueError):  # the module may have changed the path itself
            sys.path.remove(folder)


def _where(error: BaseException, name: str) -> str:
    """Formats the line of the module, or of what it imports, that failed."""
    if isinstance(error, SyntaxError) and error.filename:
        return f"{error.filename}, line {error.lineno}"
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if "importlib" not in frame.filename]
    return f"{frames[-1].filename}, line {frames[-1].lineno}" if len(frames) > 1 else f"module {name}"


def _file_of(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "no file"


def _is_plain(kind: Any) -> bool:
    """Returns whether values of a type can be written on a command line."""
    kinds = [one for one in get_args(kind) if one is not NoneType] if get_origin(kind) in {Union, UnionType} else [kind]
    return len(kinds) == 1 and kinds[0] in FIELD_TYPES
