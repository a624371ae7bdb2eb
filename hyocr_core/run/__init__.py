"""The job: plan, embedding, blocks, publishing, and what is built of it: dry runs, sweeps, trials."""
