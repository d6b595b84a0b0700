"""Files that a fuzzer made: each is read or refused, and none makes a reader fail again."""

from __future__ import annotations

import zipfile
from contextlib import suppress
from pathlib import Path

import pytest
from fuzz_readers import READERS, build_seeds

from vggnet.errors import VggnetError

CORPORA = sorted(Path(__file__).with_name("corpus").glob("*.zip"))


@pytest.mark.parametrize("reader", READERS)
def test_every_seed_is_read(reader: str, tmp_path: Path) -> None:
    """What the fuzzer starts from is valid, so that mutations reach all of a reader."""
    for seed in build_seeds(reader):
        READERS[reader](seed, tmp_path)


@pytest.mark.parametrize("corpus", CORPORA, ids=lambda path: path.stem)
@pytest.mark.filterwarnings("ignore")
def test_no_mutated_file_makes_a_reader_fail(corpus: Path, tmp_path: Path) -> None:
    """A sample of what the fuzzer kept, because it reaches new lines, is read or refused."""
    with zipfile.ZipFile(corpus) as archive:
        for name in archive.namelist():
            try:
                with suppress(VggnetError):
                    READERS[corpus.stem](archive.read(name), tmp_path)
            except Exception as error:
                error.add_note(f"{corpus.name}, {name}")
                raise
