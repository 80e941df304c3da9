"""From a catalog entry to its files, and what is said of those that nobody can fetch."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import yaml

from mlclipsim import cli, pretrained, spec
from mlclipsim.artifacts import ArtifactError
from mlclipsim.download import DownloadError
from mlclipsim.fetch import by_hand, fetch, is_there, knows

from .datasets.judged import TREES
from .test_archives import as_tar, as_zip, contents
from .webserver import serving, status

PLAN = spec.load({"preset": "paper"}, planning=True)
WEIGHTS = b"weights" * 1000


@pytest.fixture
def web(tmp_path, monkeypatch):
    monkeypatch.setenv("MLCLIPSIM_ASSETS", str(tmp_path / "assets"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr("mlclipsim.download._PAUSE_S", 0.0)
    with serving() as web:
        yield web


def entry_of(web, **more) -> dict:
    """A machine whose weights are on the server."""
    digest = hashlib.sha256(WEIGHTS).hexdigest()
    url = web.put("/net.safetensors", WEIGHTS)
    return {"weights": "assets:weights/net.safetensors", "sha256": digest, "url": url, **more}


def folder_as_zip(folder: Path, archive: Path, top: str = "") -> bytes:
    return as_zip(archive, {f"{top}{name}": data for name, data in contents(folder).items()}).read_bytes()


def test_weights_come_to_their_place(web, tmp_path):
    entry = entry_of(web)
    assert not is_there(entry)
    path = tmp_path / "assets" / "weights" / "net.safetensors"
    assert fetch("net", entry) == f"net: {path}"
    assert path.read_bytes() == WEIGHTS
    assert is_there(entry)
    fetch("net", entry)
    assert len(web.asked) == 1


def test_what_cannot_be_had_says_what_to_place_where(web, tmp_path):
    entry = entry_of(web, bytes=len(WEIGHTS))
    web.behaviours["/net.safetensors"] = status(403)
    with pytest.raises(DownloadError) as raised:
        fetch("net", entry)
    place = tmp_path / "assets" / "weights" / "net.safetensors"
    assert str(raised.value).endswith(
        f"(7,000 bytes, sha256 {entry['sha256']}) at {place} and run this again"
    )
    place.write_bytes(WEIGHTS)  # done as told
    assert fetch("net", entry) == f"net: {place}"


@pytest.fixture
def kadid10k(web, tmp_path) -> dict:
    """On the server as its authors pack it: in a folder of the data set's name."""
    TREES["kadid10k"](tmp_path / "published")
    url = web.put("/k.zip", folder_as_zip(tmp_path / "published", tmp_path / "k.zip", top="kadid10k/"))
    entry = PLAN.catalogs["datasets"]["kadid10k"]
    return entry | {"tree": {"images/*.png": 3, "dmos.csv": 1}, "remote": {"kadid10k.zip": {"url": url}}}


def test_a_data_set_is_unpacked_where_its_reader_looks(web, kadid10k, tmp_path):
    folder = tmp_path / "assets" / "data" / "kadid10k"
    assert not is_there(kadid10k)
    assert "complete" in fetch("kadid10k", kadid10k)
    assert contents(folder) == contents(tmp_path / "published")
    assert is_there(kadid10k)
    fetch("kadid10k", kadid10k)
    assert len(web.asked) == 1


def test_a_data_set_with_too_few_files_is_not_complete(kadid10k, tmp_path):
    kadid10k["tree"]["images/*.png"] = 10206
    with pytest.raises(ArtifactError, match=r"expected 10206 files, found 3; .*dmos\.csv lies in "):
        fetch("kadid10k", kadid10k)
    assert not is_there(kadid10k)
    assert (tmp_path / "assets/data/kadid10k/kadid10k.zip").exists()  # it need not come again


def test_several_archives_each_into_its_folder(web, tmp_path):
    """As CSIQ and BAPPS are."""
    TREES["csiq"](tmp_path / "csiq")
    TREES["bapps"](tmp_path / "bapps")
    for name, packed in (("csiq", ("src_imgs", "dst_imgs")), ("bapps", ())):
        entry = dict(PLAN.catalogs["datasets"][name])
        remote = {file: dict(one) for file, one in entry["remote"].items()}
        for part in packed:
            content = folder_as_zip(tmp_path / name / part, tmp_path / f"{part}.zip")
            remote[f"{part}.zip"]["url"] = web.put(f"/{part}.zip", content)
        if name == "csiq":
            workbook = (tmp_path / "csiq/csiq.DMOS.xlsx").read_bytes()
            remote["csiq.DMOS.xlsx"]["url"] = web.put("/csiq.DMOS.xlsx", workbook)
        else:
            archive = as_tar(tmp_path / "v.tar.gz", contents(tmp_path / "bapps/2afc"))
            remote["twoafc_val.tar.gz"]["url"] = web.put("/v.tar.gz", archive.read_bytes())
        tree = {pattern: len(list((tmp_path / name).glob(pattern))) for pattern in entry["tree"]}
        fetch(name, entry | {"remote": remote, "tree": tree})
        folder = tmp_path / "assets/data" / name
        assert contents(folder) == contents(tmp_path / name)


def test_files_with_sums_from_one_folder(web, tmp_path):
    """As Kodak's."""
    entry = {"reader": "photographs", "path": "assets:data/kodak", "source": "", "needs": ""}
    entry |= {"url": f"{web.address}/", "tree": {"*.png": 2}, "sha256": {}}
    for name in ("a.png", "b.png"):
        web.put(f"/{name}", name.encode())
        entry["sha256"][name] = hashlib.sha256(name.encode()).hexdigest()
    fetch("kodak", entry)
    folder = tmp_path / "assets/data/kodak"
    assert contents(folder) == {"a.png": b"a.png", "b.png": b"b.png"}
    (folder / "a.png").write_bytes(b"damaged")
    with pytest.raises(DownloadError, match=r"a\.png: expected sha256 .* move it away"):
        fetch("kodak", entry)


def test_an_archive_that_only_others_unpack_is_fetched_all_the_same(web, tmp_path):
    entry = dict(PLAN.catalogs["datasets"]["tid2013"])
    entry["remote"] = {"tid2013.rar": {"url": web.put("/tid2013.rar", b"Rar!")}}
    with pytest.raises(ArtifactError, match=r"tid2013\.rar, .* unpacked so that mos_with_names\.txt lies in"):
        fetch("tid2013", entry)
    assert (tmp_path / "assets/data/tid2013/tid2013.rar").read_bytes() == b"Rar!"


def test_forms_to_be_signed_are_no_addresses(tmp_path, monkeypatch):
    monkeypatch.setenv("MLCLIPSIM_ASSETS", str(tmp_path))
    for name, asked in {
        "live": "the form on its page",
        "imagenet-val": "registration at image-net.org",
    }.items():
        entry = PLAN.catalogs["datasets"][name]
        assert not knows(entry)
        with pytest.raises(ArtifactError, match=f"{name}: no address is known; .*needs {asked}.* in"):
            fetch(name, entry)


def test_a_null_takes_an_address_away():
    plan = spec.load({"catalog": {"datasets": {"tid2013": {"remote": {"tid2013.rar": None}}}}}, planning=True)
    assert knows(PLAN.catalogs["datasets"]["tid2013"])
    assert not knows(plan.catalogs["datasets"]["tid2013"])


def test_every_entry_outside_of_the_package_has_one_name_and_an_answer():
    names = [name for entries in PLAN.catalogs.values() for name in entries]
    outside = PLAN.outside
    assert all(names.count(name) == 1 for name in outside)
    for name, catalog in outside.items():
        entry = PLAN.catalogs[catalog][name]
        assert knows(entry) or all(by_hand(entry)), name
    assert {"scenes", "scene-clip", "scene-vgg", "scene-factorized", "jpeg", "psnr"}.isdisjoint(outside)
    assert set(PLAN.used) >= {("codecs", "bmshj2018-hyperprior"), ("datasets", "kodak"), ("metrics", "lpips")}


@pytest.mark.parametrize("name", PLAN.outside)
def test_addresses_are_of_the_files_that_are_looked_for(name):
    entry = PLAN.catalogs[PLAN.outside[name]][name]
    if "reader" in entry:
        return
    for source in pretrained.sources(entry):
        assert (source.path and source.urls) or source.hub
        assert all(Path(url).name == source.path.name for url in source.urls)
        # but for piq's, what comes from an address has a sum, or first digits of it
        assert not source.urls or source.sha256 or name == "pieapp"


def test_what_libraries_know_of_addresses():
    assert pretrained.sources(PLAN.catalogs["machines"]["efficientnet-b0"])[0].hub == (
        "timm/efficientnet_b0.ra_in1k",
        "model.safetensors",
    )
    (vgg,) = pretrained.sources(PLAN.catalogs["machines"]["vgg16"])
    (lpips,) = pretrained.sources(PLAN.catalogs["metrics"]["lpips_vgg"])
    assert vgg == lpips  # one file serves both
    assert vgg.sha256 == "397923af"
    (openai,) = pretrained.sources(PLAN.catalogs["encoders"]["vit-b-32-openai"])
    assert openai.sha256.startswith("40d365715913c9da")  # as in open_clip's address
    assert openai.hub == ("timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors")
    codec = pretrained.sources(PLAN.catalogs["codecs"]["bmshj2018-hyperprior"])
    assert [source.path.name[:21] for source in codec] == ["bmshj2018-hyperprior-"] * 8
    assert pretrained.sources(PLAN.catalogs["metrics"]["dreamsim"]) == []


def test_the_hub_is_asked_where_an_address_does_not_answer(web, tmp_path, monkeypatch):
    import huggingface_hub

    digest = hashlib.sha256(WEIGHTS).hexdigest()
    blob = tmp_path / digest
    blob.write_bytes(WEIGHTS)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda repository, file: str(blob))
    source = pretrained.Source(tmp_path / "w.pt", (f"{web.address}/gone",), digest, hub=("a/b", "w"))
    monkeypatch.setattr(pretrained, "sources", lambda _: [source])
    assert fetch("net", {"source": "open_clip"}) == f"net: {blob}"
    blob.write_bytes(b"other")
    with pytest.raises(DownloadError, match="expected sha256"):
        fetch("net", {"source": "open_clip"})


def test_without_network_the_hub_says_which_folder_to_copy(tmp_path, monkeypatch):
    import huggingface_hub

    def unreachable(*_):
        raise OSError("no route to host")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", unreachable)
    with pytest.raises(
        DownloadError, match=r"no route to host.*copy the folder models--timm--efficientnet_b0"
    ):
        fetch("efficientnet-b0", PLAN.catalogs["machines"]["efficientnet-b0"])


def test_the_command_goes_on_after_a_failure_and_counts_it(web, tmp_path, capsys):
    catalog = {"machines": {"yolox-nano": {"url": web.put("/yolox_nano.onnx", b"other bytes")}}}
    setting = tmp_path / "setting.yaml"
    setting.write_text(yaml.safe_dump({"catalog": catalog, "assets_dir": str(tmp_path / "assets")}))
    assert cli.main(["fetch", "live", "yolox-nano", "--configfile", str(setting)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert "mlclipsim: live: no address is known" in said[0]
    assert any("yolox-nano: yolox_nano.onnx could not be downloaded" in line for line in said)
    assert said[-1] == "mlclipsim: 2 of 2 are not here"
    assert cli.main(["fetch", "psnr"]) == 2
    assert "nothing to fetch is called 'psnr'" in capsys.readouterr().err


def test_an_address_changes_no_digest_and_a_sum_does():
    def digest(**entry) -> str:
        catalog = {"catalog": json.dumps({"machines": {"yolox-nano": entry}})}
        return spec.load({"preset": "local"} | catalog, planning=True).digest("predictions")

    assert digest() == digest(url="http://127.0.0.1/yolox_nano.onnx", mirrors=["http://[::1]/y"], bytes=1)
    assert digest() != digest(sha256="0" * 64)


def test_weights_from_an_address_need_a_sum():
    catalog = {"machines": {"vgg16": {"url": "ftp://x", "sha256": None}, "nobody": {"url": "http://x/y"}}}
    with pytest.raises(spec.ConfigError) as raised:
        spec.load({"catalog": catalog}, planning=True)
    assert "`vgg16.url`: 'ftp://x' does not match" in str(raised.value)
    assert "'sha256' is a dependency of 'url'" in str(raised.value)
