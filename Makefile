# Everything a person types. `make help` lists it; demo and test do their own set-up.
.DEFAULT_GOAL := help
SHELL := /bin/bash
PYTHON ?= python3
UV_VERSION := 0.13.9
PIP_AUDIT_VERSION := 2.9.0
PY := .venv/bin/python
READY := .venv/.ready

CONFIG ?= configs/demo.yaml
SETS = $(foreach s,$(SET),--set '$(s)')
OPTIONS = --config $(CONFIG) $(SETS)
CLIPS_OPTION = $(if $(CLIPS),--clips '$(CLIPS)')
VIEWS_OPTION = $(if $(VIEWS),--views '$(VIEWS)') $(if $(LABELS),--labels '$(LABELS)')
OUT_OPTION = $(if $(OUT),--out '$(OUT)')

# Debian's own; for a person with apt-get and the rights to use it, and nobody else.
define INSTALL_CHROMIUM
{ [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null && apt-get -qq update && apt-get -qq install -y chromium; } || \
	{ echo 'error: no Chromium; install it (apt-get install chromium, as root), then run this again' >&2; exit 2; }
endef

# Whether PyPI tells holes that are known here and now: a mirror may not, and a machine without network cannot.
ADVISORIES_ANSWER = $(PY) -c 'import json, signal, urllib.request as web; signal.alarm(5); \
	json.load(web.urlopen("https://pypi.org/pypi/pip/24.0/json", timeout=4))["vulnerabilities"]' >/dev/null 2>&1
AUDIT = .venv/bin/uv tool run pip-audit@$(PIP_AUDIT_VERSION) --strict --disable-pip --require-hashes \
	--progress-spinner off -r requirements.lock

.NOTPARALLEL:
.PHONY: bench-tib bench-davenet bench-extract bench-faults bench-scale help setup demo test test-browser test-ray lint audit lock docs screenshots
.PHONY: prepare transcribe pretrain-audio extract compact reduce train evaluate report predict run rerun status doctor export import

help: ## list every target
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'
	@echo '  Variables: CONFIG=configs/x.yaml CLIPS=DIR VIEWS=DIR LABELS=FILE OUT=DIR CSV=FILE SET="a.b=c d.e=f" ARGS="..."'
	@echo '  Every stage lists its settings: make train ARGS=--help; and takes ARGS="-v", -q (quiet) or --json'

setup: $(READY) ## .venv with the locked packages; the other targets do it themselves

.venv/bin/uv:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "error: Python 3.11 or newer is needed, $(PYTHON) is $$($(PYTHON) --version 2>&1); set PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -m venv .venv
	@.venv/bin/python -m pip install -q --disable-pip-version-check uv==$(UV_VERSION)

$(READY): requirements.lock pyproject.toml | .venv/bin/uv
	@echo 'setting up .venv from requirements.lock (once; PyTorch alone is a few GB)' >&2
	@.venv/bin/uv pip install --python $(PY) --require-hashes -r requirements.lock
	@.venv/bin/uv pip install -q --python $(PY) --no-deps --no-build-isolation -e .
	@touch $@

demo: $(READY) ## the whole pipeline on clips made here, offline: the place to start
	@$(PY) -m pipeline run --config configs/demo.yaml $(ARGS)

test: $(READY) ## the tests
	$(PY) -m pytest -n 2 --dist loadfile $(ARGS)

test-browser: $(READY) ## the tests of the report's page, in a headless Chromium that it installs where it can
	@command -v chromium || command -v chromium-browser || command -v google-chrome || $(INSTALL_CHROMIUM)
	$(PY) -m pytest -n 1 -m browser $(ARGS)

test-ray: $(READY) ## the tests on clusters, really killed: Ray's head and two workers, torchrun; a quarter of an hour
	$(PY) -m pytest -m cluster $(ARGS)

lint: $(READY) ## format, lint and type checks, and where PyPI answers the audit, which stops nothing
	.venv/bin/ruff format --check .
	.venv/bin/ruff check .
	.venv/bin/mypy
	@if $(ADVISORIES_ANSWER); then $(AUDIT) || echo 'audit: look at the above; it does not stop lint'; \
		else echo 'audit: skipped, as PyPI tells no advisories here within 5 s'; fi

audit: $(READY) ## holes that are known in the locked packages; needs the network
	@$(AUDIT)

lock: .venv/bin/uv ## requirements.lock anew from pyproject.toml
	.venv/bin/uv pip compile -q --universal --python-version 3.11 --generate-hashes --upgrade \
		--extra demo --extra umap --extra csd --extra tensorboard --extra openvino --extra ray --extra dev pyproject.toml -o requirements.lock

docs: $(READY) ## docs/settings.md anew from the settings' own models
	@$(PY) docs/settings_reference.py

screenshots: $(READY) ## docs/images anew from the demo's report
	@$(PY) docs/screenshots.py results/demo/report.html

prepare: $(READY) ## corpus -> manifest and labels; says what does not match
	@$(PY) -m pipeline prepare $(OPTIONS) $(CLIPS_OPTION) $(ARGS)

transcribe: $(READY) ## words for clips that have none, by a speech recogniser; MODEL=openai/whisper-base, or a folder
	@$(PY) -m pipeline transcribe $(OPTIONS) $(CLIPS_OPTION) $(if $(MODEL),--model '$(MODEL)') $(ARGS)

pretrain-audio: $(READY) ## raw clips -> an audio encoder of their own, without labels; extract does it where it is missing
	@$(PY) -m pipeline pretrain-audio $(OPTIONS) $(CLIPS_OPTION) $(ARGS)

extract: $(READY) ## raw clips -> embeddings, resumable
	@$(PY) -m pipeline extract $(OPTIONS) $(CLIPS_OPTION) $(ARGS)

compact: $(READY) ## many small parts of the embeddings into few large ones
	@$(PY) -m pipeline compact $(OPTIONS) $(ARGS)

reduce: $(READY) ## embeddings -> views of 60 dims
	@$(PY) -m pipeline reduce $(OPTIONS) $(ARGS)

train: $(READY) ## views -> clusters
	@$(PY) -m pipeline train $(OPTIONS) $(VIEWS_OPTION) $(OUT_OPTION) $(ARGS)

evaluate: $(READY) ## scores of a run against labels and baselines
	@$(PY) -m pipeline evaluate $(OPTIONS) $(VIEWS_OPTION) $(OUT_OPTION) $(ARGS)

report: $(READY) ## the HTML page of a run; EMBED=1 puts the clips' media into it
	@$(PY) -m pipeline report $(OPTIONS) $(if $(VIEWS),--views '$(VIEWS)') $(OUT_OPTION) $(if $(EMBED),--embed-media) \
		$(ARGS)

predict: $(READY) ## clusters for new clips, RUN=results/x CLIPS=DIR (or VIEWS=DIR of features)
	@$(PY) -m pipeline predict $(if $(RUN),--run '$(RUN)') $(CLIPS_OPTION) $(if $(VIEWS),--views '$(VIEWS)') \
		$(OUT_OPTION) $(SETS) $(ARGS)

run: $(READY) ## all of these, each skipping what is done
	@$(PY) -m pipeline run $(OPTIONS) $(CLIPS_OPTION) $(OUT_OPTION) $(ARGS)

rerun: $(READY) ## a finished run made again and compared, RUN=results/x (OUT=DIR, CLIPS=DIR for raw clips)
	@$(PY) -m pipeline rerun '$(or $(RUN),$(error give RUN=results/x))' $(CLIPS_OPTION) $(OUT_OPTION) $(ARGS)

status: $(READY) ## what each stage has done, and what it would do now
	@$(PY) -m pipeline status $(OPTIONS) $(CLIPS_OPTION) $(if $(VIEWS),--views '$(VIEWS)') $(OUT_OPTION) $(ARGS)

doctor: $(READY) ## whether this machine can run the stages, and what in the clips (CLIPS=DIR) will fail; CSV=FILE keeps it
	@$(PY) -m pipeline doctor $(OPTIONS) $(CLIPS_OPTION) $(if $(VIEWS),--views '$(VIEWS)') $(OUT_OPTION) \
		$(if $(CSV),--csv '$(CSV)') $(ARGS)

export: $(READY) ## features for other programs, FORMAT=npy|npz|csv|parquet|mmsa|hf OUT=DIR (VIEWS=DIR, RUN=results/x)
	@$(PY) -m pipeline export $(if $(RUN),--run '$(RUN)',--config $(CONFIG)) $(SETS) \
		$(if $(VIEWS),--views '$(VIEWS)') --format '$(or $(FORMAT),$(error give FORMAT=))' $(OUT_OPTION) $(ARGS)

import: $(READY) ## features from elsewhere, FROM=FILE or DIR, OUT=DIR (FORMAT= as export's, or csd)
	@$(PY) -m pipeline import '$(or $(FROM),$(error give FROM=FILE or DIR))' $(if $(FORMAT),--format '$(FORMAT)') $(OUT_OPTION) $(ARGS)

bench-davenet: $(READY) ## what training DAVEnet on the corpus' own clips gives, as JSON; ARGS=--quick for minutes
	@$(PY) -m benchmarks.bench_davenet $(ARGS)

bench-extract: $(READY) ## how fast clips become embeddings against a plain loop, as JSON and a table; ARGS=--quick for minutes
	@$(PY) -m benchmarks.bench_extract $(ARGS)

bench-faults: $(READY) ## what is lost when stages are killed, disks refuse and files are damaged; ARGS=--quick for minutes
	@$(PY) -m benchmarks.bench_faults $(ARGS)

bench-scale: $(READY) ## what grows with a corpus: store, TIB, Ray, a cost model, as JSON; ARGS=--quick for minutes
	@$(PY) -m benchmarks.bench_scale $(ARGS)

bench-tib: $(READY) ## quality and speed of TIB, as JSON; ARGS=--quick for minutes
	@$(PY) -m benchmarks.bench_tib $(ARGS)
