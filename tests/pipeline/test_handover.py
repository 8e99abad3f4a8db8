import json

from olmix_jax.pipeline import handover
from olmix_jax.propose.export import Mixture
from olmix_jax.propose.trainer_formats import FORMATS

MIXTURE = Mixture({"d:0": 0.6, "d:1": 0.4, "d:2": 0.0}, target_tokens=1e9)


def test_every_format_is_written_with_the_mixture_that_its_trainer_realises(tmp_path):
    exports = handover.write(tmp_path, MIXTURE)
    folder = tmp_path / handover.FOLDER
    assert {path.name for path in folder.iterdir()} == {trainer.file for trainer in FORMATS.values()} | {
        "handover.json"
    }
    report = json.loads((folder / "handover.json").read_text())
    assert report["target_tokens"] == 1e9 and report["weights"] == {"d:0": 0.6, "d:1": 0.4, "d:2": 0.0}
    assert set(exports) == set(FORMATS) == set(report["formats"])
    for name, export in exports.items():
        entry = report["formats"][name]
        assert export.file == f"propose/handover/{entry['file']}" and (tmp_path / export.file).is_file()
        assert entry["realised"] == export.realised
        assert export.largest_error == abs(entry["largest_deviation"]["by"])
        assert entry["lost"] == [] and entry["epochs_over_cap"] == {}


def test_file_of_a_format_that_cannot_express_the_mixture_is_removed(tmp_path):
    handover.write(tmp_path, MIXTURE)
    blend = tmp_path / handover.FOLDER / "megatron_blend.txt"
    assert "d%3A" in blend.read_text()
    exports = handover.write(tmp_path, Mixture(MIXTURE.weights, paths="my data/{domain}"))
    assert "megatron_args" not in exports and not blend.exists()
    entry = json.loads((tmp_path / handover.FOLDER / "handover.json").read_text())["formats"]["megatron_args"]
    assert set(entry) == {"not_written"} and "white space" in entry["not_written"]
