"""Where promotions are reviewed: one module a kind of forge."""
