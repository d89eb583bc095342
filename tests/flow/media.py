"""Models and prices of the endpoints beside chat: one of each way to be priced. It holds no test."""

from __future__ import annotations

MODELS = """
[models."embed-test"]
operations = ["embeddings"]
context = 8192
max_output = 1
routes = [{ upstream = "up", model = "up-embed" }]

[models."judge-test"]
operations = ["moderation"]
context = 32768
max_output = 1
routes = [{ upstream = "up", model = "up-judge" }]

[models."judge-tokens"]
operations = ["moderation"]
context = 32768
max_output = 1
routes = [{ upstream = "up", model = "up-judge" }]

[models."judge-free"]
operations = ["moderation"]
context = 32768
max_output = 1
routes = [{ upstream = "up", model = "up-judge" }]

[models."image-pieces"]
operations = ["images"]
context = 8192
max_output = 8192
routes = [{ upstream = "up", model = "up-image" }]

[models."image-tokens"]
operations = ["images"]
context = 8192
max_output = 8192
routes = [{ upstream = "up", model = "up-image" }]

[models."voice-characters"]
operations = ["speech"]
context = 8192
max_output = 4096
routes = [{ upstream = "up", model = "up-voice" }]

[models."voice-tokens"]
operations = ["speech"]
context = 8192
max_output = 4096
routes = [{ upstream = "up", model = "up-voice" }]

[models."text-test"]
operations = ["chat"]
context = 8192
max_output = 1024
routes = [{ upstream = "uptext", model = "up-text" }]
"""
PRICES = """
[[price]]
model = "embed-test"
effective = 2025-01-01
input = "0.02"

[[price]]
model = "judge-test"
effective = 2025-01-01
requests = "0.0001"

[[price]]
model = "judge-tokens"
effective = 2025-01-01
input = "0.10"

[[price]]
model = "judge-free"
effective = 2025-01-01
requests = "0"

[[price]]
model = "image-pieces"
effective = 2025-01-01
images = [
    { size = "auto", usd = "0.04" },
    { size = "1024x1024", quality = "standard", usd = "0.04" },
    { size = "1024x1024", quality = "hd", usd = "0.08" },
    { size = "1792x1024", quality = "hd", usd = "0.12" },
]

[[price]]
model = "image-tokens"
effective = 2025-01-01
input = "5.00"
input_image = "10.00"
output = "10.00"
output_image = "40.00"

[[price]]
model = "voice-characters"
effective = 2025-01-01
characters = "15.00"

[[price]]
model = "voice-tokens"
effective = 2025-01-01
input = "0.60"
output_audio = "12.00"

[[price]]
model = "text-test"
effective = 2025-01-01
input = "1.50"
output = "2.00"
"""

__all__ = ["MODELS", "PRICES"]
