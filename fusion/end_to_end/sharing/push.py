"""Bundles on a hub: the repository of a model, created if needed, with exactly the files of a bundle."""

from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError, LocalTokenNotFoundError

from cache.errors import MmerError
from fusion.end_to_end.prediction.source import BUNDLE, ENCODERS_FOLDER, REPOSITORY

OF_THE_HUB = frozenset({".gitattributes", "README.md"})  # files that a hub or its web page writes
# Files of an earlier bundle, which are deleted unless they are uploaded again.
REPLACED = ("*-seed*/*", f"{ENCODERS_FOLDER}/*")


def check_repository(name: str) -> None:
    """Checks the name of a repository.

    Raises:
        MmerError: if it is not of the form ``OWNER/NAME``.

    Example:
        >>> check_repository("somebody/emotions")
    """
    match = REPOSITORY.fullmatch(name)
    if match is None or match["revision"]:
        raise MmerError(f"--push {name}: expected OWNER/NAME, such as somebody/demo-emotions")


def push_bundle(bundle: Path, name: str, *, private: bool = False) -> str:
    """Uploads a bundle in one commit.

    Args:
        bundle: folder of the bundle.
        name: repository, ``OWNER/NAME``.
        private: create it as a private one; an existing repository stays as it is.

    Returns:
        Address of the repository.

    Raises:
        MmerError: if the hub is not reachable, refuses, or the repository holds something else.
    """
    api = HfApi()
    try:
        url = api.create_repo(name, private=private or None, exist_ok=True)
        held = set(api.list_repo_files(name))
        if held - OF_THE_HUB and BUNDLE not in held:
            raise MmerError(f"{name} holds {min(held - OF_THE_HUB)!r} and is not a bundle; choose another repository")
        api.upload_folder(
            repo_id=name,
            folder_path=bundle,
            commit_message="Bundle of mmer-export",
            delete_patterns=list(REPLACED),
        )
    except (HfHubHTTPError, LocalTokenNotFoundError, OSError, ValueError) as error:
        reason = next(iter(str(error).strip().splitlines()), type(error).__name__)[:200]
        raise MmerError(
            f"{name} cannot be written ({reason}); log in with `hf auth login`, and check the name and the network"
        ) from error
    return str(url)
