"""HTTP to the systems outside: one client for all JSON APIs."""
