"""Writes tests/fixtures/families: one tiny random checkpoint per model family and variant.

The oracle is Transformers, an implementation that shares nothing with this program. For every case
a folder holds

  config.json            as Transformers 5 writes it
  config.v4.json         for some cases: the same model in the keys that hub checkpoints of the 4.x
                         years carry (rope_theta, rope_scaling, torch_dtype, n_head ...)
  model.safetensors      float32 weights (bfloat16 where the case says so; shards where it says so)
  expected.safetensors   ids0, ids1 (tokens) I64; logits0, logits1 (tokens, vocabulary) F32

What makes a fixture worth having:
  * Weights are far larger than the default initialisation (std 0.02 leaves the residual stream equal
    to the embedding, and every mistake inside a block then vanishes below the tolerance). Norm
    weights are not one, biases not zero. Logits come out of order 1 to 5.
  * Numbers are awkward: odd head counts, head sizes different from hidden / heads, widths that fill
    no vector register, windows shorter than the sequences.
  * It is well conditioned: the script runs each model again in float64 and refuses a case in which
    float32 rounding alone moves a logit by more than 2e-5, a fifth of the 1e-4 that tests allow.
  * It is sensitive: each case names the config changes that must move the logits (`matters`); the
    script reloads the same weights under the changed config and refuses the case if they do not.

Run in an environment with torch and transformers (written with torch 2.15, transformers 5.23):

    HF_HUB_OFFLINE=1 python tools/make_family_fixtures.py [case ...]
"""

import copy
import json
import math
import shutil
import sys
import tempfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM
from transformers import logging as transformers_logging

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "tests" / "fixtures" / "families"
LENGTHS = (24, 37)
ROUNDING_LIMIT = 2e-5
SENSITIVITY_FLOOR = 1e-2

# --------------------------------------------------------------------------------------- weights


def fill(model, generator):
    """Random parameters, sized so that every branch contributes as much as the residual stream."""
    gemma = model.config.model_type == "gemma2"
    hidden = model.config.hidden_size
    for name, value in model.named_parameters():
        shape = value.shape
        if value.dim() == 1:
            is_bias = name.endswith("bias")
            middle = 0.0 if is_bias or gemma else 1.0
            values = middle + 0.2 * torch.randn(shape, generator=generator)
        elif any(key in name for key in ("embed", "wte", "wpe", "lm_head")):
            values = 1.8 / math.sqrt(hidden) * torch.randn(shape, generator=generator)
        else:
            conv1d = model.config.model_type == "gpt2"  # stored (in, out)
            fan_in = shape[0] if conv1d else shape[1]
            values = 1.3 / math.sqrt(fan_in) * torch.randn(shape, generator=generator)
        value.data.copy_(values)


def logits_of(model, ids):
    with torch.no_grad():
        return model(input_ids=ids[None], use_cache=False).logits[0].float().contiguous()


# --------------------------------------------------------------------- configs in the older keys


def older_rope(config, parameters):
    """rope_parameters -> rope_theta and rope_scaling, as files written by 4.x have them."""
    parameters = dict(parameters)
    config["rope_theta"] = parameters.pop("rope_theta")
    partial = parameters.pop("partial_rotary_factor", None)
    kind = parameters.pop("rope_type")
    config["rope_scaling"] = {"rope_type": kind, **parameters} if kind != "default" else None
    return partial


def older(config, drop=()):
    """The 4.x spelling of a config that Transformers 5 wrote."""
    config = copy.deepcopy(config)
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.41.2"
    partial = None
    if "rope_parameters" in config:
        partial = older_rope(config, config.pop("rope_parameters"))
    for key in ("layer_types", "qk_head_dim", *drop):
        config.pop(key, None)
    return config, partial


def older_plain(config):
    return older(config)[0]


def older_mla(config):
    """DeepSeek files carry neither head_dim nor qk_head_dim, and say `type` inside rope_scaling."""
    result = older(config, drop=("head_dim",))[0]
    if result["rope_scaling"]:
        result["rope_scaling"]["type"] = result["rope_scaling"].pop("rope_type")
    return result


def older_minicpm3(config):
    return older(config, drop=("head_dim", "v_head_dim"))[0]


def older_phi3(config):
    result, partial = older(config)
    if partial != 1.0:
        result["partial_rotary_factor"] = partial
    if result["rope_scaling"]:
        scaling = result["rope_scaling"]
        result["rope_scaling"] = {key: scaling[key] for key in ("short_factor", "long_factor")}
        result["rope_scaling"]["type"] = "longrope"
    return result


def older_neox(config):
    result, partial = older(config)
    result["rotary_emb_base"] = int(result.pop("rope_theta"))
    result["rotary_pct"] = partial
    result.pop("rope_scaling")
    return result


def older_falcon(config):
    """Released files of this family say nothing about rope, widths that follow, or the activation."""
    result = older(config)[0]
    silent = ["rope_theta", "rope_scaling", "max_position_embeddings", "num_ln_in_parallel_attn", "activation"]
    if result["ffn_hidden_size"] == 4 * result["hidden_size"]:
        silent.append("ffn_hidden_size")
    for key in silent:
        result.pop(key, None)
    return result


# ----------------------------------------------------------------------------------------- cases

VOCAB = 97
ROPE = {"rope_type": "default", "rope_theta": 10000.0}
CASES = {}


def case(name, model_type, *, seed=None, matters=(), older=None, dtype="float32", shard=None, **config):
    """Registers a case. `matters`: config changes, each of which must move the logits."""
    CASES[name] = {
        "model_type": model_type,
        "seed": len(CASES) + 11 if seed is None else seed,
        "matters": matters,
        "older": older,
        "dtype": dtype,
        "shard": shard,
        "config": {"vocab_size": VOCAB, "pad_token_id": None, "bos_token_id": 1, "eos_token_id": 2, **config},
    }


def llama_like(**changes):
    base = dict(
        hidden_size=30, intermediate_size=34, num_hidden_layers=2, num_attention_heads=3, rms_norm_eps=1e-5,
        max_position_embeddings=64, rope_parameters=dict(ROPE), tie_word_embeddings=False,
    )
    return {**base, **changes}


case("llama2", "llama", older=older_plain, **llama_like(), matters=[{"rms_norm_eps": 0.1}])
case("llama_gqa", "llama", **llama_like(
    num_attention_heads=6, num_key_value_heads=3, head_dim=6, tie_word_embeddings=True, num_hidden_layers=3,
    intermediate_size=38))
case("llama3", "llama", older=older_plain, **llama_like(
    num_attention_heads=3, num_key_value_heads=1, head_dim=16, max_position_embeddings=512,
    # Wavelengths 6.3, 32, 167 ...: with 64 original positions the first stays, the second is
    # blended, the others are divided by the factor.
    rope_parameters={"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                     "high_freq_factor": 4.0, "original_max_position_embeddings": 64}),
    matters=[{"rope_parameters": {"rope_type": "default", "rope_theta": 500000.0}}])
case("llama_bias", "llama", **llama_like(attention_bias=True, mlp_bias=True, num_key_value_heads=1))
case("llama_linear", "llama", older=older_plain, **llama_like(
    rope_parameters={"rope_type": "linear", "rope_theta": 10000.0, "factor": 2.5}),
    matters=[{"rope_parameters": dict(ROPE)}])
YARN = {"rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 32}
case("llama_yarn", "llama", older=older_plain, **llama_like(
    num_attention_heads=3, head_dim=16, max_position_embeddings=128, rope_parameters=dict(YARN)),
    matters=[{"rope_parameters": dict(ROPE)}, {"rope_parameters": {**YARN, "attention_factor": 1.0}}])
YARN_FULL = {**YARN, "attention_factor": 1.25, "beta_fast": 5.0, "beta_slow": 0.5, "truncate": False}
case("llama_yarn_full", "llama", **llama_like(
    num_attention_heads=3, head_dim=16, max_position_embeddings=128, rope_parameters=YARN_FULL),
    matters=[{"rope_parameters": {**YARN_FULL, "truncate": True}}])
DYNAMIC = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 3.0}
# The first sequence fits into max_position_embeddings, the second (prefilled at once) does not.
case("llama_dynamic", "llama", older=older_plain, **llama_like(
    rope_parameters=dict(DYNAMIC), max_position_embeddings=32))
case("llama_bf16", "llama", dtype="bfloat16", older=older_plain, **llama_like(
    hidden_size=40, num_attention_heads=5, num_key_value_heads=1, num_hidden_layers=3, intermediate_size=50))

case("mistral", "mistral", older=older_plain, **llama_like(
    hidden_size=34, num_attention_heads=6, num_key_value_heads=2, head_dim=8, sliding_window=8,
    rope_parameters={"rope_type": "default", "rope_theta": 1000000.0}),
    matters=[{"sliding_window": None}, {"sliding_window": 9}])

case("qwen2", "qwen2", older=older_plain, **llama_like(
    hidden_size=40, num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=True))
case("qwen2_window", "qwen2", older=older_plain, shard="48KB", **llama_like(
    hidden_size=30, num_attention_heads=3, num_key_value_heads=3, num_hidden_layers=3, intermediate_size=34,
    use_sliding_window=True, sliding_window=7, max_window_layers=1),
    matters=[{"layer_types": ["full_attention"] * 3}, {"layer_types": ["sliding_attention"] * 3}])
case("qwen3", "qwen3", older=older_plain, **llama_like(
    hidden_size=32, num_attention_heads=6, num_key_value_heads=2, head_dim=10, intermediate_size=36))
case("qwen3_bias", "qwen3", **llama_like(
    hidden_size=24, num_attention_heads=5, num_key_value_heads=5, head_dim=8, attention_bias=True,
    tie_word_embeddings=True, num_hidden_layers=3, use_sliding_window=True, sliding_window=5, max_window_layers=2))

case("gemma2", "gemma2", older=older_plain, **llama_like(
    hidden_size=28, num_attention_heads=4, num_key_value_heads=2, head_dim=10, num_hidden_layers=3,
    intermediate_size=30, tie_word_embeddings=True, sliding_window=6, query_pre_attn_scalar=20,
    # Caps far below the released 50 and 30, so that they bend these small scores and logits.
    attn_logit_softcapping=2.5, final_logit_softcapping=4.0, hidden_activation="gelu_pytorch_tanh"),
    matters=[{"attn_logit_softcapping": None}, {"final_logit_softcapping": None}, {"query_pre_attn_scalar": 12},
             {"sliding_window": 7}])

case("phi3", "phi3", older=older_phi3, **llama_like(
    hidden_size=40, num_attention_heads=5, num_key_value_heads=1, sliding_window=9,
    rope_parameters={**ROPE, "partial_rotary_factor": 0.5}), matters=[{"sliding_window": None}])
case("phi3_longrope", "phi3", older=older_phi3, **llama_like(
    num_attention_heads=3, num_key_value_heads=3, max_position_embeddings=120,
    original_max_position_embeddings=30,
    # 24 tokens use the short factors, 37 tokens at once the long ones.
    rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "partial_rotary_factor": 1.0,
                     "original_max_position_embeddings": 30,
                     "short_factor": [1.0, 1.05, 1.1, 1.3, 1.6], "long_factor": [1.2, 1.9, 3.1, 4.2, 6.5]}))


def gpt_like(**changes):
    base = dict(n_positions=64, n_embd=36, n_layer=2, n_head=3, n_inner=50, tie_word_embeddings=True)
    return {**base, **changes}


case("gpt2", "gpt2", older=older_plain, **gpt_like(n_inner=None, n_embd=28, n_head=2))
case("gpt2_scaled", "gpt2", **gpt_like(
    n_layer=3, n_inner=22, n_embd=24, scale_attn_by_inverse_layer_idx=True, activation_function="relu",
    tie_word_embeddings=False), matters=[{"scale_attn_by_inverse_layer_idx": False}])
case("gptj", "gptj", older=older_plain, **gpt_like(
    n_inner=None, n_embd=30, n_head=3, rotary_dim=6, tie_word_embeddings=False), matters=[{"rotary_dim": 10}])


def neox_like(**changes):
    base = dict(
        hidden_size=30, intermediate_size=46, num_hidden_layers=2, num_attention_heads=3, layer_norm_eps=1e-5,
        max_position_embeddings=64, rope_parameters={**ROPE, "partial_rotary_factor": 0.25}, hidden_act="gelu",
    )
    return {**base, **changes}


# rotary_pct 0.25 of head size 16 turns 4 of its dimensions, 0.6 of 10 turns 6.
case("gpt_neox_parallel", "gpt_neox", older=older_neox, **neox_like(
    hidden_size=32, num_attention_heads=2, use_parallel_residual=True), matters=[{"use_parallel_residual": False}])
case("gpt_neox_sequential", "gpt_neox", older=older_neox, **neox_like(
    rope_parameters={**ROPE, "partial_rotary_factor": 0.6}, use_parallel_residual=False, attention_bias=False,
    tie_word_embeddings=True, hidden_act="gelu_new"))


def falcon_like(**changes):
    base = dict(
        hidden_size=30, num_hidden_layers=2, num_attention_heads=3, layer_norm_epsilon=1e-5, alibi=False,
        multi_query=False, new_decoder_architecture=False, parallel_attn=True, bias=False,
        max_position_embeddings=2048, rope_parameters=dict(ROPE), tie_word_embeddings=True,
    )
    return {**base, **changes}


case("falcon_mqa", "falcon", older=older_falcon, **falcon_like(multi_query=True, tie_word_embeddings=False))
case("falcon_new", "falcon", older=older_falcon, **falcon_like(
    hidden_size=24, num_attention_heads=6, num_kv_heads=2, new_decoder_architecture=True, multi_query=True,
    ffn_hidden_size=96))
case("falcon_new_one_norm", "falcon", **falcon_like(
    hidden_size=32, num_attention_heads=4, num_kv_heads=2, new_decoder_architecture=True, num_ln_in_parallel_attn=1,
    ffn_hidden_size=52))
case("falcon_mha", "falcon", **falcon_like(parallel_attn=False, bias=True, ffn_hidden_size=70))


def mla_like(**changes):
    base = dict(
        hidden_size=30, intermediate_size=36, num_hidden_layers=2, num_attention_heads=5, num_key_value_heads=5,
        kv_lora_rank=14, q_lora_rank=18, qk_nope_head_dim=6, qk_rope_head_dim=8, v_head_dim=10, rms_norm_eps=1e-5,
        max_position_embeddings=128, rope_parameters=dict(ROPE), tie_word_embeddings=False,
    )
    return {**base, **changes}


MLA_YARN = {**YARN, "beta_fast": 32, "beta_slow": 1, "mscale": 0.7, "mscale_all_dim": 1.2}
LATENT_YARN = [{"rope_parameters": {**MLA_YARN, "mscale_all_dim": 0.7}}]
case("deepseek_v2", "deepseek_v2", older=older_mla, **mla_like(first_k_dense_replace=2))
case("deepseek_v2_noq", "deepseek_v2", **mla_like(
    first_k_dense_replace=2, q_lora_rank=None, attention_bias=True, qk_nope_head_dim=4, v_head_dim=7))
case("deepseek_v2_yarn", "deepseek_v2", older=older_mla, **mla_like(
    first_k_dense_replace=2, q_lora_rank=None, rope_parameters=dict(MLA_YARN)), matters=LATENT_YARN)
case("deepseek_v3", "deepseek_v3", older=older_mla, **mla_like(first_k_dense_replace=2, attention_bias=True))
case("deepseek_v3_halves", "deepseek_v3", **mla_like(
    first_k_dense_replace=2, rope_interleave=False, q_lora_rank=None, qk_nope_head_dim=5), matters=[{"rope_interleave": True}])
case("deepseek_v3_yarn", "deepseek_v3", older=older_mla, **mla_like(
    first_k_dense_replace=2, rope_parameters=dict(MLA_YARN)), matters=LATENT_YARN)
case("minicpm3", "minicpm3", older=older_minicpm3, **mla_like(
    v_head_dim=6, scale_emb=12, scale_depth=1.4, dim_model_base=24, tie_word_embeddings=True),
    matters=[{"scale_emb": 3}, {"scale_depth": 1.0}, {"dim_model_base": 40}])
case("minicpm3_longrope", "minicpm3", older=older_plain, **mla_like(
    q_lora_rank=None, scale_emb=2.5, scale_depth=2.1, dim_model_base=20,
    rope_parameters={"rope_type": "longrope", "rope_theta": 10000.0, "original_max_position_embeddings": 64,
                     "short_factor": [1.0, 1.2, 1.5, 1.9], "long_factor": [2.0, 3.0, 4.0, 5.0]}),
    matters=[{"rope_parameters": dict(ROPE)}])

# --------------------------------------------------------------------------------------- writing


def load(folder, dtype=torch.float32):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, attn_implementation="eager")
    return model.eval()


def reloaded_logits(folder, config, ids, dtype=torch.float32):
    """Logits of the saved weights under another config.json."""
    with tempfile.TemporaryDirectory() as place:
        for file in folder.glob("model*"):
            shutil.copy(file, place)
        (Path(place) / "config.json").write_text(json.dumps(config))
        return [logits_of(load(place, dtype), one) for one in ids]


def largest_difference(first, second):
    return max((a.double() - b.double()).abs().max().item() for a, b in zip(first, second))


def build(name, spec):
    torch.manual_seed(0)
    folder = OUT / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    config = AutoConfig.for_model(spec["model_type"], **copy.deepcopy(spec["config"]))
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager", dtype=torch.float32)
    generator = torch.Generator().manual_seed(spec["seed"])
    fill(model, generator)
    model.to(getattr(torch, spec["dtype"])).save_pretrained(folder, max_shard_size=spec["shard"] or "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)

    model = load(folder)
    ids = [torch.randint(0, VOCAB, (length,), generator=generator) for length in LENGTHS]
    # The longer one first: state left over from it (dynamic rope) must not touch the other.
    expected = [logits_of(model, one) for one in ids[::-1]][::-1]
    written = json.loads((folder / "config.json").read_text())

    exact = [logits_of(model.double(), one) for one in ids]
    rounding = largest_difference(expected, exact)
    assert rounding < ROUNDING_LIMIT, f"{name}: float32 rounding alone moves logits by {rounding:.1e}"
    for change in spec["matters"]:
        moved = largest_difference(expected, reloaded_logits(folder, {**written, **change}, ids))
        assert moved > SENSITIVITY_FLOOR, f"{name}: {change} moves logits by {moved:.1e} only"
    if spec["older"]:
        spelled = spec["older"](written)
        moved = largest_difference(expected, reloaded_logits(folder, spelled, ids))
        assert moved == 0.0, f"{name}: the older spelling moves logits by {moved:.1e}"
        (folder / "config.v4.json").write_text(json.dumps(spelled, indent=2, sort_keys=True) + "\n")

    tensors = {f"ids{i}": one for i, one in enumerate(ids)}
    tensors |= {f"logits{i}": one for i, one in enumerate(expected)}
    save_file(tensors, folder / "expected.safetensors")
    spread = torch.cat([one.flatten() for one in expected])
    size = sum(file.stat().st_size for file in folder.iterdir())
    print(f"{name:22} {size / 1000:6.1f} kB  logits std {spread.std():.2f} max {spread.abs().max():5.1f}"
          f"  rounding {rounding:.1e}", flush=True)
    return size


def main():
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    names = sys.argv[1:] or list(CASES)
    total = sum(build(name, CASES[name]) for name in names)
    print(f"{len(names)} cases, {total / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
