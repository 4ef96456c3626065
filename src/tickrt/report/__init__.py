"""What came out, for people: `report.json`, `report.html`, the terminal. It only reads.

- `report.write_report`: results as files; `load_report` reads them; `table.print_report` prints.
- `schema`: the pages that say what is in it, made from `runtime.report_types`.
- `summary`, `format`: how it is said; `html`, `charts`, `svg`: how it looks.
"""
