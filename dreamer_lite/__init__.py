"""dreamer_lite: DreamerV1, V2 and V3 in small, exact, readable PyTorch."""

import gymnasium as _gymnasium

__version__ = "0.1.0"

for _name, _world, _options in (
    ("FlickerCatch", "Catch", {"blank": 0.2}),
    ("NoisyCatch", "Catch", {"noise": 128}),
    ("ScaleCatch", "Catch", {"scale": 100.0}),
    ("Fork", "Fork", {}),
    ("MiniPong", "MiniPong", {}),
):
    _gymnasium.register(f"dreamer_lite/{_name}-v0", f"dreamer_lite.toys:{_world}", kwargs=_options)
