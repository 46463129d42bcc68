"""What a pull costs, measured: `python -m tests.bench` (`make bench`). It writes docs/performance.md and its picture.

pytest runs only the test of the page's writer: a measurement is no test, and a test is no measurement.
"""
