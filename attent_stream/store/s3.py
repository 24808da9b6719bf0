"""Streaming's S3 downloader with bounded requests, also for public buckets."""

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
    """Streaming's S3 downloader; if credentials are refused or missing, it asks once without.

    A public bucket needs no credentials, and refuses expired or foreign ones. Streaming asks
    without credentials only after a 400. If that is refused too, it makes new clients without end.
    """

    def __init__(self) -> None:
        super().__init__()
        self._anonymous = False

    def clean_up(self) -> None:
        """Drop the connection; the next one reads the credentials again."""
        super().clean_up()
        self._anonymous = False

    def download_changed(self, remote: str, local: Path, known: Path, timeout: float) -> bool:
        """Download an object in one request, unless its tag says that it has known content.

        Args:
            remote: Address of the object.
            local: Path to write it to.
            known: A file of the known content.
            timeout: Seconds to wait for each packet.

        Returns:
            Whether the object was downloaded. It may still have the known content: the tag of a
            multipart upload or an encrypted object is not the hash of its content.
        """
        address = urllib.parse.urlparse(remote)
        requester_pays = address.netloc in self._requester_pays_buckets
        pays = {"RequestPayer": "requester"} if requester_pays else {}
        md5 = hashlib.md5(usedforsecurity=False)
        with open(known, "rb") as file:
            while part := file.read(1 << 20):
                md5.update(part)
        tag = f'"{md5.hexdigest()}"'

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
        """Ask with credentials, then once without; if both are refused, raise the first refusal."""
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
            raise refused  # Streaming would ask without credentials; ``_allowed`` does that once
        super()._create_s3_client(unsigned=unsigned, timeout=timeout)
        self._anonymous = unsigned
