"""What a user may import: a change of this list is a change for users."""

from __future__ import annotations

from gravito import atlas


def test_the_room_s_names() -> None:
    assert sorted(atlas.__all__) == [
        "Breaker",
        "Client",
        "ClusterClient",
        "DB",
        "Event",
        "Limits",
        "Message",
        "Pipeline",
        "Redis",
        "Retry",
        "Script",
        "Settings",
        "Stats",
        "Subscription",
        "TLS",
        "Timeouts",
    ]
    assert [name for name in atlas.__all__ if not hasattr(atlas, name)] == []
