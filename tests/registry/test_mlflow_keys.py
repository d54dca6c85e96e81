"""Classes with any names become keys that MLflow takes, each its own."""

from mlflow.utils.validation import _validate_metric_name

from heartml.registry.mlflow_keys import valid_key, valid_keys
from heartml.release.run_record import scores

CLASSES = ("Clic mésosystolique", "Clic mèsosystolique", "..", "a/", "/", "<b>=1+1", "none", "N/A")


def test_mlflow_takes_the_score_of_every_class() -> None:
    number = {"value": 0.5, "low": None, "high": None}
    found = scores({"held_out": {}, "out_of_fold": {}, "floors": {},
                    "per_class": {"held_out": {name: {"recall": number} for name in CLASSES}}})
    keys = valid_keys(found)
    assert len(set(keys.values())) == len(found) == len(CLASSES)
    for key in keys.values():
        _validate_metric_name(key)


def test_names_of_published_tasks_keep_their_keys() -> None:
    names = ["class/held_out/Present/recall", "seconds/split/simulated-murmur", "robustness/white_snr_db/0/uar"]
    assert valid_keys(names) == {name: name for name in names}
    assert valid_key("seconds/split/circor+simulated-murmur") == "seconds/split/circor.simulated-murmur"
