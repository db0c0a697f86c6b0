.PHONY: lint types test

lint:  ## style and formatting
	ruff check .
	ruff format --check .

types:  ## static types
	mypy

test:  ## the whole suite; make test ARGS='-m "not slow"' leaves out what takes long
	pytest $(ARGS)
