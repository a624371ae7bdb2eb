"""The public toolbox for authors of methods: statistics, grids, solvers and checks."""
