"""Stand-ins for broker, database and processes whose steps a schedule decides."""
