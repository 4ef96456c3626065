"""What came out, for people: `report.json`, `report.html`, the terminal. It only reads.

- `report.write_report`: a run's results as files; `table.print_report` prints them.
- `html`, `charts`, `svg`, `format`: how it looks.
"""
