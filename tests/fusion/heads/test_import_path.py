import sys
from pathlib import Path

import pytest

from cache.errors import MmerError
from fusion.config import configured
from fusion.head_config import HeadConfig
from fusion.heads.build import build_head
from fusion.heads.catalog import HEADS, config_for, file_name_of, head_spec, is_import_path, stored_head_spec
from fusion.heads.import_path import check_config, import_head
from tests.support.heads import batch_of, head_inputs
from tests.support.own_heads import NAME, example, in_folder

IMPORTS = "from dataclasses import dataclass\nfrom fusion.head import Head, HeadConfig, HeadOutput\n"
FORWARD = "    def forward(self, batch):\n        return HeadOutput(batch.labels)\n"
CONFIG = "@dataclass(frozen=True, kw_only=True)\nclass C(HeadConfig):\n"
OWN = f"class H(Head):\n    config_class = C\n{FORWARD}"
NO_CONFIG = (
    "config_class must be a subclass of fusion.head_config.HeadConfig with @dataclass(frozen=True, kw_only=True), got"
)


def test_a_head_is_imported_from_the_current_folder_which_does_not_stay_on_the_path(tmp_path: Path) -> None:
    before = list(sys.path)
    with in_folder(tmp_path, my_head=example()):
        spec = head_spec(NAME)
        assert (spec.summary, spec.config.__name__, len(spec.source)) == (
            "Gated fusion of pooled speech and text.",
            "MyConfig",
            16,
        )
        head = build_head(NAME, config_for(NAME, {"balance": "0.5", "longest": "7"}), head_inputs(), seed=0)
        assert set(head(batch_of(3)).losses) == {"balance"}
    assert sys.path == before


def test_a_module_may_import_its_neighbours(tmp_path: Path) -> None:
    with in_folder(tmp_path, my_parts=example(), my_head="from my_parts import MyHead\n"):
        assert import_head(NAME).__module__ == "my_parts"


def test_a_package_is_named_with_dots(tmp_path: Path) -> None:
    (tmp_path / "package_of_heads").mkdir()
    (tmp_path / "package_of_heads" / "gated.py").write_text(example())
    with in_folder(tmp_path):
        assert config_for("package_of_heads.gated:MyHead", {}).loss_weights == {"balance": 0.1}
    for name in ("package_of_heads", "package_of_heads.gated"):
        sys.modules.pop(name)


@pytest.mark.parametrize(
    ("source", "message"),
    [
        (None, "module my_head not found in the current folder ({folder}) or on the Python path"),
        ("", "module my_head ({folder}/my_head.py) has no class H"),
        ("H = 3\n", "module my_head ({folder}/my_head.py) has no class H"),
        ("class H: pass\n", "H is not a subclass of fusion.head.Head"),
        (f"{IMPORTS}class H(Head):\n    config_class = HeadConfig\n", "H has no method forward"),
        (
            f"{IMPORTS}class H(Head):\n{FORWARD}",
            "H has no config_class; set it to a subclass of fusion.head_config.HeadConfig, or to HeadConfig itself",
        ),
        (f"{IMPORTS}class H(Head):\n    config_class = dict\n{FORWARD}", f"{NO_CONFIG} dict"),
        (f"{IMPORTS}class C(HeadConfig):\n    x: int = 3\n{OWN}", f"{NO_CONFIG} C"),
        (
            f"{IMPORTS}{CONFIG}    x: list[int] = None\n{OWN}",
            "field x of C must be a bool, int, float or str, or one of them or None, got list[int]",
        ),
        (f"{IMPORTS}{CONFIG}    x: int\n{OWN}", "field x of C has no default; give it one"),
        (
            f"{IMPORTS}{CONFIG}    lr: float = 0.1\n{OWN}",
            "field lr of C has the name of a training field; choose another name",
        ),
        ("import torch\n1 / 0\n", "{folder}/my_head.py, line 2: ZeroDivisionError: division by zero"),
        ("import no_such_thing\n", "{folder}/my_head.py, line 1: No module named 'no_such_thing'"),
        ("def f(:\n", "{folder}/my_head.py, line 1: SyntaxError: invalid syntax (my_head.py, line 1)"),
    ],
)
def test_what_is_no_usable_head_is_one_clear_line(tmp_path: Path, source: str | None, message: str) -> None:
    modules = {} if source is None else {"my_head": source}
    with in_folder(tmp_path, **modules), pytest.raises(MmerError) as error:
        head_spec("my_head:H")
    assert str(error.value) == f"head my_head:H: {message.format(folder=tmp_path)}"


@pytest.mark.parametrize("name", ["my_head.MyHead", "my head:MyHead", "my_head:", ":MyHead", "a/b:C", "a:b:C"])
def test_what_looks_like_an_import_path_and_is_none_tells_the_form(name: str) -> None:
    assert not is_import_path(name)
    with pytest.raises(MmerError, match="a head of your own is named module:Class, such as my_heads:MyHead"):
        head_spec(name)


def test_a_name_in_a_run_folder_runs_no_code_that_the_user_did_not_name(tmp_path: Path) -> None:
    with in_folder(tmp_path, my_head=f"open('ran', 'w').close()\n{example()}"):
        for allowed in (None, "my_head:Other", "my_head", "rescmfa"):
            with pytest.raises(
                MmerError, match=r"trained with head my_head:MyHead, which is code outside mmer"
            ) as error:
                stored_head_spec(NAME, allowed=allowed)
            way_out = str(error.value).partition("; ")[2]
            assert way_out == (
                f"if you trust it, name it: --head {NAME}{f', not {allowed}' if allowed else ''} "
                f"(mmer-predict, mmer-export), or head={NAME!r} in Python"
            )
        assert not (tmp_path / "ran").exists()
        spec = stored_head_spec(NAME, allowed=NAME)
        assert (tmp_path / "ran").exists()
        assert stored_head_spec(NAME, allowed=NAME, source=spec.source) == spec
        with pytest.raises(MmerError, match="the source file of head my_head:MyHead has changed since the run"):
            stored_head_spec(NAME, allowed=NAME, source="0" * 16)


@pytest.mark.parametrize("name", HEADS)
def test_a_head_of_the_catalog_needs_no_permission(name: str) -> None:
    assert stored_head_spec(name) is head_spec(name)


@pytest.mark.parametrize("name", HEADS)
def test_the_configurations_of_the_catalog_keep_the_rules_for_own_ones(name: str) -> None:
    check_config(name, HEADS[name].head_class())
    assert file_name_of(name) == name
    assert isinstance(configured(HEADS[name].config, {}, owner=name), HeadConfig)
