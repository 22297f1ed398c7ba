"""Does `sweeper check` see broken models and servers, and does it leave healthy ones alone? See docs/check.md."""
