from pathlib import Path

from cache.joined import open_cache
from fusion.experiment.featurize_commands import featurize_command_for_encoder, featurize_command_for_role
from tests.support.shards import NAMES, SIX, write_piece, write_whole


def test_shards_are_added_to_by_the_name_they_were_cut_from(tmp_path: Path) -> None:
    whole = write_whole(tmp_path / "whole.h5", SIX)
    for number, ids in enumerate((NAMES[:3], NAMES[3:]), start=1):
        write_piece(whole, tmp_path / f"voices-{number:02}-of-16.h5", ids)
    first = f"mmer-featurize toy --root . --cache {tmp_path / 'voices.h5'} --shards 16 --shard 1 --encoder roberta-base"
    assert featurize_command_for_role(open_cache(tmp_path / "voices-01-of-16.h5"), "text") == first
    cache = open_cache(tmp_path / "voices-*.h5")
    expected = f"mmer-featurize toy --root . --cache {tmp_path / 'voices.h5'} --shards 16 --encoder roberta-base"
    assert featurize_command_for_role(cache, "text") == expected


def test_a_single_file_is_named_as_it_is(tmp_path: Path) -> None:
    path = write_whole(tmp_path / "it's.h5", SIX)
    assert f"""--cache '{tmp_path}/it'"'"'s.h5' --encoder x""" in featurize_command_for_encoder(open_cache(path), "x")
