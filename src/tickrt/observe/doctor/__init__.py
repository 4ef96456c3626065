"""What on this machine costs latency. It reads, and changes nothing.

- `examine.examine`: every check, as findings; `finding.Finding` is one of them.
- `tree.Tree`: the files of a machine: this one's, or those that a test recorded.
- `cores`, `memory`, `system`, `gpu`, `tools`: the checks, each a function of a tree.
- `permits`: what this process may ask of the kernel; a run asks the same.
"""
