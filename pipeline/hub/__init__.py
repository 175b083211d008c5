"""Module handles: finding, fetching, caching and staging modules. `python -m pipeline.hub` describes and makes them."""
