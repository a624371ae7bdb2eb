"""Who reads the pages: this process, a runtime or an endpoint; and what is kept meanwhile."""
