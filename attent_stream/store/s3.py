"""Streaming's S3 downloader, with requests that end, also to public buckets."""

import hashlib
import shutil
import sys
import urllib.parse
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from streaming.base.constant import DEFAULT_TIMEOUT
from streaming.base.storage.download import S3Downloader

from attent_stream.base.errors import DeniedError
from attent_stream.store.store_errors import http_status, kind_of

_Answer = TypeVar("_Answer")
_NOT_MODIFIED = 304


class FiniteS3Downloader(S3Downloader):
    """Streaming's S3 downloader; if credentials are refused or missing it asks once without.

    A public bucket needs no credentials, and refuses those that have expired or are somebody
    else's. Streaming asks without them only where S3 answers 400. If that is refused too, it makes
    one client after the other, without end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._anonymous = False

    def clean_up(self) -> None:
        """Forget the connection. The next one has credentials, which may have been renewed."""
        super().clean_up()
        self._anonymous = False

    def download_changed(self, remote: str, local: Path, known: bytes, timeout: float) -> bool:
        """Download an object, in one request, unless the store says that it has this content.

        Args:
            remote: Its address.
            local: Where to write it to.
            known: The content that is here already.
            timeout: Seconds to wait for each packet.

        Returns:
            Whether anything was downloaded. That may be the same content: the tag of an object that
            was uploaded in several parts, or encrypted, is not the hash of its content.
        """
        address = urllib.parse.urlparse(remote)
        pays = (
            {"RequestPayer": "requester"} if address.netloc in self._requester_pays_buckets else {}
        )
        tag = f'"{hashlib.md5(known, usedforsecurity=False).hexdigest()}"'

        def ask() -> bool:
            client = self._s3_client or self._connect(timeout)
            try:
                answer = client.get_object(
                    Bucket=address.netloc, Key=address.path.lstrip("/"), IfNoneMatch=tag, **pays
                )
            except Exception as error:
                if http_status(error) == _NOT_MODIFIED:
                    return False
                raise
            with open(local, "wb") as file:
                shutil.copyfileobj(answer["Body"], file)
            return True

        return self._allowed(ask, timeout)

    def _download_file_impl(self, remote: str, local: str, timeout: float) -> None:
        stock = super()._download_file_impl
        self._allowed(lambda: stock(remote, local, timeout), timeout)

    def _allowed(self, ask: Callable[[], _Answer], timeout: float) -> _Answer:
        """Ask with credentials, and if that is refused, once without.

        If both are refused the first refusal is raised.
        """
        anonymous = self._anonymous
        try:
            return ask()
        except Exception as error:
            if anonymous or kind_of(error) is not DeniedError:
                raise
            refused = error
        super()._create_s3_client(unsigned=True, timeout=timeout)
        self._anonymous = True
        try:
            return ask()
        except Exception as error:
            if kind_of(error) is not DeniedError:
                raise
        self.clean_up()
        raise refused

    def _connect(self, timeout: float) -> Any:
        self._create_s3_client(timeout=timeout)
        return self._s3_client

    def _create_s3_client(self, unsigned: bool = False, timeout: float = DEFAULT_TIMEOUT) -> None:
        refused = sys.exc_info()[1]
        if unsigned and refused is not None:
            raise refused  # Streaming would ask without credentials now; ``_allowed`` does, once
        super()._create_s3_client(unsigned=unsigned, timeout=timeout)
        self._anonymous = unsigned
