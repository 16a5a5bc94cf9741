"""The demo: simulated plant sensors through real brokers into continuous views, live in the terminal."""
