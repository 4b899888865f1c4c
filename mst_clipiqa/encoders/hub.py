"""Files from the Hugging Face hub, or from its cache on this machine.

Only a hub id that somebody named is ever asked for. Files that are cached are used without any network access if they
cannot have changed (the revision is a commit) or if the hub does not answer.
"""

from __future__ import annotations

import contextlib
import os
import re
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mst_clipiqa.errors import ModelError, shown

HUB_SECONDS = 1.5
"""How long the hub may take to answer at all; HF_HUB_ETAG_TIMEOUT, if set, says otherwise."""

HUB_ID = re.compile(r"[\w-][\w.-]*/[\w.-]+")
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubAccess:
    """How to ask the hub, in the words of ``huggingface_hub``.

    Attributes:
        revision: branch, tag or commit; None for the main branch.
        token: of a private or gated repository; None for the one of ``hf auth login``.
        cache_dir: where files are kept; None for the hub's own cache.
        local_files_only: whether only files in that cache may be used.
        force_download: whether files that are cached are downloaded again.
    """

    revision: str | None = None
    token: str | bool | None = None
    cache_dir: str | Path | None = None
    local_files_only: bool = False
    force_download: bool = False


def snapshot(repo: str, patterns: Sequence[str], access: HubAccess) -> Path:
    """Return the folder in the hub's cache that holds one revision of a repository, named like its commit.

    Args:
        repo: hub id, "org/name".
        patterns: of the files to download; others stay on the hub.
        access: which revision, and how to get it.

    Raises:
        ModelError: the hub has no such repository or revision, or it is not cached and the hub cannot be reached.
    """
    from huggingface_hub import constants, snapshot_download

    named: dict[str, Any] = {"cache_dir": access.cache_dir, "allow_patterns": list(patterns)}
    revision, local = access.revision, access.local_files_only or constants.HF_HUB_OFFLINE
    cached = _cached(repo, revision, named)
    is_commit = revision is not None and COMMIT.fullmatch(revision)
    if cached and (local or (is_commit and not access.force_download)):
        return cached
    if local or not answers(constants.ENDPOINT):
        if cached and not access.force_download:
            return cached
        at = f" at {revision}" if revision else ""
        raise ModelError(
            f"Expected a folder, or a hub id in the local cache or a network to fetch it, got {repo!r}{at}: "
            "check the path, or connect once."
        )
    try:
        return Path(
            snapshot_download(
                repo, revision=revision, token=access.token, force_download=access.force_download, **named
            )
        )
    except Exception as error:  # the errors of the client's own client differ from version to version
        raise ModelError(refused(error, repo, revision)) from error


def answers(endpoint: str) -> bool:
    """Return whether the hub answers soon; its own client tries for half a minute and warns a lot.

    The request is made in a thread, because no time limit covers the look-up of a host's name.
    """
    from huggingface_hub import constants, get_session

    seconds = constants.HF_HUB_ETAG_TIMEOUT if "HF_HUB_ETAG_TIMEOUT" in os.environ else HUB_SECONDS
    answered, done = threading.Event(), threading.Event()

    def ask() -> None:
        with contextlib.suppress(Exception):  # each version of the client raises errors of its own
            get_session().head(endpoint, timeout=seconds)
            answered.set()
        done.set()

    threading.Thread(target=ask, daemon=True).start()
    done.wait(seconds)
    return answered.is_set()


def _cached(repo: str, revision: str | None, named: dict[str, Any]) -> Path | None:
    """Return the folder of a revision in the cache, as it was when the hub was last asked; None if there is none."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(repo, revision=revision, local_files_only=True, **named))
    except HFValidationError as error:
        raise ModelError(refused(error, repo, revision)) from error
    except LocalEntryNotFoundError:
        return None


def refused(error: Exception, repo: str, revision: str | None) -> str:
    """Return one sentence for an error of the hub."""
    from huggingface_hub.errors import GatedRepoError, HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    match error:
        case GatedRepoError():  # before its parent, RepositoryNotFoundError
            return f"Expected a hub id that is open to you, got {repo!r}: ask for access and log in."
        case RepositoryNotFoundError():
            return (
                f"Expected a folder or a hub id that exists, got {repo!r}: check the path, or log in if it is private."
            )
        case RevisionNotFoundError():
            return f"Expected a revision of {repo}, got {revision!r}, which it does not have: check the name."
        case HFValidationError():
            return f"Expected a folder or a hub id, got {repo!r}, which is neither: check the path."
    return f"Expected {repo} to be downloaded from the hub, got {shown(error)}: try again."
