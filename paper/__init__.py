"""The paper's figures and claims: the table of runs, what trains them, how they are drawn and judged. No torch."""
