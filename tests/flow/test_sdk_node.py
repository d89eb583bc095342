"""The official JavaScript SDKs, unmodified, through the gateway: the same calls as the Python ones, in one Node process."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

from tests.flow.gateway import configure, running, upstream
from tests.node.fixture import Aimock, NodeEnv


async def test_both_sdks_notice_nothing(node_env: NodeEnv, aimock: Aimock, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 17, "completion_tokens": 5, "input_tokens": 17, "output_tokens": 5}
    aimock.answer({"userMessage": "tool"}, {"toolCalls": [{"name": "weather", "arguments": '{"city":"Oslo"}'}], "usage": usage})
    aimock.answer(
        {"userMessage": "die"}, {"content": "a long answer that breaks off"}, truncateAfterChunks=3, chunkSize=4, latency=30
    )
    aimock.answer({"userMessage": "hello"}, {"content": "Hello from afar", "usage": usage})
    upstreams = upstream("up", "openai", f"{aimock.url}/v1") + upstream("upa", "anthropic", aimock.url)
    async with running(configure(tmp_path, upstreams=upstreams)) as gw:
        seen = json.loads(await node_env.run("through.mjs", gw.url, await gw.key()))
        models = ["claude-test", "demo-echo", "gpt-test"]
        assert seen == {
            "chat": ["Hello from afar", 17, "string"],
            "chatStream": "Hello from afar",
            "chatTool": '{"city":"Oslo"}',
            "message": ["Hello from afar", 17, "string"],
            "messageStream": ["Hello from afar", 5, "end_turn"],
            "messageTool": {"city": "Oslo"},
            "models": models * 2,
            "wrongKey": ["AuthenticationError", 401],
            "noModel": ["NotFoundError", 404],
            "noModelMessages": ["NotFoundError", 404],
            "died": ["APIError", None],
        }
        records = await gw.settled(count=7)
        costs = Counter(record.cost for record in records if record.cell == "ok")
        assert costs == {17 * 150 + 5 * 600: 3, 17 * 3000 + 5 * 15000: 3}
        assert [record.cell for record in records if record.cell != "ok"] == ["died"]
