# Everything runs in .venv, which is made on first use and again when what it holds has changed.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-all demo-audio demo-text test browser lint types clean

demo: .venv/installed ## featurize the built-in corpus, check the cache, train two single modalities and their fusion, predict
	@echo "about a minute on two cores: features of 320 utterances, three heads on five folds each, a prediction"
	$(BIN)/mmer-featurize demo --encoder wav2vec2-tiny --encoder roberta-tiny --no-mel
	$(BIN)/mmer-cache verify cache/demo.h5
	@$(MAKE) --no-print-directory --jobs 2 --output-sync=target demo-audio demo-text
	$(BIN)/mmer-train --fusion rescmfa --cache cache/demo.h5 --lr 0.005 --batch-size 16 --epochs 4 \
		--set standardize=true --set dim=32 --set heads=2 --set layers=1 --set dropout=0 \
		--set text_slots=16 --set audio_slots=300
	$(BIN)/mmer-predict "$$(ls -td runs/demo-rescmfa-* | head -1)" cache/demo/Session1/Ses01M_d01_001.wav \
		--text "again the garden"

demo-audio demo-text: demo-%: # side by side, since a small head keeps one core busy; each prints its output as a whole
	$(BIN)/mmer-train --fusion $* --cache cache/demo.h5 --lr 0.01 --epochs 20

demo-all: .venv/installed ## add to the cache of the demo what any head needs: patches, weights to start from, dialogue history
	$(BIN)/mmer-featurize demo --start-layers 5
	$(BIN)/mmer-featurize demo --encoder roberta-tiny --history 10 --max-tokens 150

test: .venv/installed ## all tests; modules are compiled once and not by every process
	PYTHONDONTWRITEBYTECODE= HF_HUB_OFFLINE=1 $(BIN)/python -m pytest --numprocesses auto --maxprocesses 4 --dist worksteal

browser: ## Debian's Chromium for the tests of reports, where it is absent and apt-get may install it
	@command -v chromium >/dev/null || if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
		apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends chromium >/dev/null; \
	else echo "no chromium: the tests of reports in a browser are skipped"; fi

lint: .venv/installed ## style, by ruff
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: .venv/installed ## types, by mypy in strict mode
	$(BIN)/mypy

.venv/installed: setup.cfg pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	$(BIN)/python -c "import librosa.feature.spectral" # numba compiles its functions once, and not in every process of the tests
	touch .venv/installed

clean: ## the environment and all caches of tools; no feature cache
	rm -rf .venv build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
