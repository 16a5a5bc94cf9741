"""Random faults under a steady load: nothing lost, nothing twice. `make crash` (see __main__.py) and test_crash.py."""
