"""Names of the facts that say what a model was trained on, which models that are made of it carry on."""

EARLIER_MODELS = ("base_model", "warm_start_model")
"""The trainer's inputs that are models which training begins with."""
ORIGIN_FACTS = (
    "seed",
    "task_sha256",
    "training_examples_sha256",
    "evaluation_examples_sha256",
    "schema_sha256",
    "transform_sha256",
    *(f"{key}_sha256" for key in EARLIER_MODELS),
    "training_python_version",
    "training_platform",
)
"""Those that a model which is made of a trained one carries on."""
