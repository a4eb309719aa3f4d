"""dreamer_lite: DreamerV1, V2 and V3 from the same small pieces, in exact, readable PyTorch."""

from importlib import import_module as _import_module

import gymnasium as _gymnasium

__version__ = "0.1.0"

for _name, _world, _options in (
    ("FlickerCatch", "Catch", {"blank": 0.2}),
    ("NoisyCatch", "Catch", {"noise": 128}),
    ("ScaleCatch", "Catch", {"scale": 100.0}),
    ("Fork", "Fork", {}),
    ("MiniPong", "MiniPong", {}),
    ("Reach", "Reach", {}),
):
    _gymnasium.register(f"dreamer_lite/{_name}-v0", f"dreamer_lite.toys:{_world}", kwargs=_options)

# The public names and their modules, loaded when first asked for: `python -m dreamer_lite.doctor`
# must be able to say that torch is missing.
_WHERE = {
    "PRESETS": "presets",
    "V1": "presets",
    "V2": "presets",
    "V2_DMC": "presets",
    "V3": "presets",
    "Config": "presets",
    "diff": "presets",
    "sized": "presets",
    "Dreamer": "agent",
    "train": "training",
    "evaluate": "training",
    "load_run": "training",
    "State": "rssm",
    "RSSM": "rssm",
    "WorldModel": "world_model",
    "kl_loss": "world_model",
    "lambda_return": "returns",
    "actor_loss": "behavior",
    "symlog": "transforms",
    "symexp": "transforms",
    "twohot": "transforms",
}
__all__ = list(_WHERE)


def __getattr__(name: str):
    if name not in _WHERE:
        raise AttributeError(f"module 'dreamer_lite' has no attribute {name!r}")
    return getattr(_import_module(f"dreamer_lite.{_WHERE[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
